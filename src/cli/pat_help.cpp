#include "cli/pat_help.h"

#include "core/pat_token.h"

#include "cli/pat_failure.h"
#include "cli/pat_text.h"

#include <algorithm>
#include <memory>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

class formatter : public CLI::Formatter {
public:
    std::string make_subcommands(const CLI::App *app, CLI::AppFormatMode mode) const override
    {
        std::string text = CLI::Formatter::make_subcommands(app, mode);
        const CLI::App *parent = app->get_parent();
        if (parent != nullptr && app->get_fallthrough() && mode == CLI::AppFormatMode::Normal) {
            text += make_group("Global options", false, parent->get_options([parent](const CLI::Option *option) {
                return option != parent->get_help_ptr() && option != parent->get_version_ptr();
            }));
        }
        return text;
    }
};

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

void show_global_options(CLI::App &app)
{
    app.formatter(std::make_shared<formatter>());
}

std::string help_on(const CLI::App &app, const std::string &command)
{
    if (command.empty()) {
        return app.get_formatter()->make_help(&app, app.get_name(), CLI::AppFormatMode::Normal);
    }
    for (const CLI::App *each : app.get_subcommands({})) {
        if (each->get_name() == command) {
            return each->help(app.get_name());
        }
    }
    throw bad_value{unknown_command(app, command) + ": see \"patctl --help\""};
}

std::string unknown_command(const CLI::App &app, const std::string &name)
{
    constexpr std::size_t most_edits = 2;
    constexpr std::size_t longest = 32;

    std::string meant;
    if (name.size() <= longest) {
        const auto commands = app.get_subcommands({});
        const auto distance = [&](const CLI::App *command) { return distance_of(command->get_name(), name); };
        const CLI::App *nearest = *std::ranges::min_element(commands, {}, distance);
        if (distance(nearest) <= std::min(most_edits, name.size() / 2)) {
            meant = fmt::format(" (did you mean \"{}\"?)", nearest->get_name());
        }
    }
    return is_token(name) ? fmt::format("unknown command (a token is read from standard input only){}", meant)
                          : fmt::format("unknown command \"{}\"{}", printable(name), meant);
}

}  // namespace pat::cli
