/// Times, durations, sizes and counts as text, against regular expressions and the calendar of the C library. Input: a
/// text.

#include "cli/pat_failure.h"
#include "cli/pat_time.h"
#include "pat_fuzz.h"
#include "pat_pattern.h"

#include <ctime>
#include <optional>
#include <string>

using namespace pat;
using fuzz::pattern;

namespace {

using wide = __int128;

template <typename Parse>
auto result_of(const Parse &parse) -> std::optional<decltype(parse())>
{
    try {
        return parse();
    } catch (const cli::bad_value &) {
        return std::nullopt;
    }
}

/// The number in decimal digits, or 2^80 if it is higher.
wide number_of(std::string_view digits)
{
    constexpr wide most = wide{1} << 80;
    wide result = 0;
    for (const char c : digits) {
        result = std::min(most, result * 10 + (c - '0'));
    }
    return result;
}

int part(std::string_view text, std::size_t at, std::size_t length)
{
    return static_cast<int>(number_of(text.substr(at, length)));
}

std::optional<wide> right_time(std::string_view text)
{
    static const pattern seconds{"^-?[0-9]+$"};
    static const pattern date{"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?"
                              "([Zz]|[+-][0-9]{2}:[0-9]{2})$"};
    if (seconds.matches(text)) {
        return text.front() == '-' ? -number_of(text.substr(1)) : number_of(text);
    }
    if (!date.matches(text)) {
        return std::nullopt;
    }

    std::tm fields{};
    fields.tm_year = part(text, 0, 4) - 1900;
    fields.tm_mon = part(text, 5, 2) - 1;
    fields.tm_mday = part(text, 8, 2);
    std::tm normal = fields;
    timegm(&normal);
    const int hour = part(text, 11, 2);
    const int minute = part(text, 14, 2);
    const int second = part(text, 17, 2);
    if (normal.tm_mday != fields.tm_mday || normal.tm_mon != fields.tm_mon || hour > 23 || minute > 59 || second > 60) {
        return std::nullopt;
    }

    wide result = wide{timegm(&fields)} + hour * 3600 + minute * 60 + second;
    if (text.back() != 'Z' && text.back() != 'z') {
        const std::string_view offset = text.substr(text.size() - 6);
        const int hours = part(offset, 1, 2);
        const int minutes = part(offset, 4, 2);
        if (hours > 23 || minutes > 59) {
            return std::nullopt;
        }
        result -= (offset[0] == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
    }
    return second == 60 && result % 86400 != 0 ? std::nullopt : std::optional{result};
}

void try_time(std::string_view text)
{
    const auto time = result_of([&] { return cli::parse_time(text); });
    const auto right = right_time(text);
    const bool is_good = right && *right > 0 && *right <= 253402300799;
    expect(time.has_value() == is_good);
    if (!time) {
        return;
    }
    expect(*time == *right);

    const std::string written = cli::format_time(*time);
    std::array<char, 32> c_library;
    std::tm fields{};
    gmtime_r(&*time, &fields);
    const std::size_t length = std::strftime(c_library.data(), c_library.size(), "%Y-%m-%dT%H:%M:%SZ", &fields);
    expect(written == std::string_view(c_library.data(), length));
    expect(cli::parse_time(written) == *time);
}

void try_duration(std::string_view text)
{
    static const pattern form{"^([0-9]+)[smhdwMy]$"};
    constexpr std::string_view units = "smhdwMy";
    constexpr std::int64_t seconds[] = {1, 60, 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400};

    const auto duration = result_of([&] { return cli::parse_duration(text); });
    const auto digits = form.find(text);
    const wide right = digits ? number_of(*digits) * seconds[units.find(text.back())] : 0;
    // The number before the unit has at most 32 bits.
    const bool is_good = digits && number_of(*digits) < wide{1} << 32 && right <= wide{8000} * 365 * 86400;
    expect(duration.has_value() == is_good);
    if (duration) {
        expect(*duration == right);
        expect(!cli::format_duration(*duration).empty());
    }
}

void try_size(std::string_view text)
{
    static const pattern form{"^([0-9]+)[kKmMgG]?$"};
    constexpr std::string_view units = "kKmMgG";

    const auto size = result_of([&] { return cli::parse_size(text); });
    const auto digits = form.find(text);
    const std::size_t unit = digits ? units.find(text.back()) : std::string_view::npos;
    const wide right = digits ? number_of(*digits) << (unit == std::string_view::npos ? 0 : 10 * (unit / 2 + 1)) : 0;
    const bool is_good = digits && number_of(*digits) < wide{1} << 64 && right <= wide{1} << 46;
    expect(size.has_value() == is_good);
    expect(!size || *size == static_cast<std::size_t>(right));
}

void try_count(std::string_view text)
{
    static const pattern form{"^[0-9]+$"};
    const auto count = result_of([&] { return cli::parse_count(text, 1000); });
    const bool is_good = form.matches(text) && number_of(text) >= 1 && number_of(text) <= 1000;
    expect(count.has_value() == is_good);
    expect(!count || *count == static_cast<std::uint64_t>(number_of(text)));
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    const std::string_view text = fuzz::input{data, size}.rest();
    try_time(text);
    try_duration(text);
    try_size(text);
    try_count(text);
    return 0;
}
