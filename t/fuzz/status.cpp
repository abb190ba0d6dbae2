/// What clients of the status and of reports of uses send. Input: a cursor, the end of a line, and the value of an
/// Accept header.

#include "core/pat_media.h"
#include "core/pat_usage.h"
#include "pat_fuzz.h"
#include "pat_pattern.h"

#include <algorithm>
#include <cctype>
#include <string>

using namespace pat;

namespace {

void try_cursor(std::string_view text)
{
    static const fuzz::pattern digits{"^0*([0-9]{1,20})$"};
    constexpr std::int64_t now = 1'800'000'000;
    constexpr unsigned __int128 most = static_cast<unsigned __int128>(now + 365 * 86400) << 20;

    unsigned __int128 right = most + 1;
    if (const auto found = digits.find(text)) {
        right = 0;
        for (const char c : *found) {
            right = right * 10 + static_cast<unsigned>(c - '0');
        }
    }
    const auto cursor = usage_table::parse_cursor(text, now);
    expect(cursor.has_value() == (right <= most));
    expect(!cursor || *cursor == right);
}

void try_accept(std::string_view value)
{
    std::string lower{value};
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const std::string_view type : {"text/html", "text/plain"}) {
        expect(names_media_type(value, type) == (lower.find(type) != std::string::npos));
    }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};
    try_cursor(in.until('\n'));
    try_accept(in.rest());
    return 0;
}
