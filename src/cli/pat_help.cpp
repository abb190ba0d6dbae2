#include "cli/pat_help.h"

#include "core/pat_token.h"

#include "cli/pat_failure.h"
#include "cli/pat_text.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace pat::cli {

namespace {

/// How many edits make one text of the other: a character inserted, removed or replaced, or two neighbours exchanged
/// (optimal string alignment).
std::size_t distance_of(std::string_view one, std::string_view other)
{
    const std::size_t columns = other.size() + 1;
    std::vector<std::size_t> edits((one.size() + 1) * columns);
    const auto at = [&](std::size_t i, std::size_t j) -> std::size_t & { return edits[i * columns + j]; };

    for (std::size_t i = 0; i <= one.size(); i++) {
        for (std::size_t j = 0; j <= other.size(); j++) {
            if (i == 0 || j == 0) {
                at(i, j) = i + j;
                continue;
            }
            const std::size_t replaced = at(i - 1, j - 1) + (one[i - 1] != other[j - 1] ? 1 : 0);
            at(i, j) = std::min({replaced, at(i - 1, j) + 1, at(i, j - 1) + 1});
            if (i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1]) {
                at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
            }
        }
    }
    return edits.back();
}

}  // namespace

std::string unknown_command(const std::vector<std::string> &commands, const std::string &name)
{
    constexpr std::size_t most_edits = 2;
    constexpr std::size_t longest = 32;

    std::string meant;
    if (name.size() <= longest) {
        const auto distance = [&](const std::string &command) { return distance_of(command, name); };
        const std::string &nearest = *std::ranges::min_element(commands, {}, distance);
        if (distance(nearest) <= std::min(most_edits, name.size() / 2)) {
            meant = fmt::format(" (did you mean \"{}\"?)", nearest);
        }
    }
    return is_token(name) ? fmt::format("unknown command (a token is read from standard input only){}", meant)
                          : fmt::format("unknown command \"{}\"{}", printable(name), meant);
}

}  // namespace pat::cli
