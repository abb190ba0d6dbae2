#include "cli/pat_time.h"

#include "core/pat_rules.h"

#include "cli/pat_failure.h"
#include "cli/pat_text.h"

#include <charconv>
#include <chrono>
#include <optional>

#include <fmt/core.h>

namespace pat::cli {

namespace {

constexpr std::int64_t minute = 60;
constexpr std::int64_t hour = 60 * minute;
constexpr std::int64_t day = 24 * hour;

/// Longer ones reach past the year 9999; the sum of a time and a duration can't overflow below it.
constexpr std::int64_t max_duration = std::int64_t{8000} * 365 * day;

/// Takes expected characters off the front of a text, and remembers whether all of them were there.
class scanner {
public:
    explicit scanner(std::string_view text) : rest_{text} {}

    /// A number of exactly `digits` digits.
    int number(std::size_t digits)
    {
        int value = 0;
        for (std::size_t i = 0; i < digits; i++) {
            if (rest_.empty() || rest_.front() < '0' || rest_.front() > '9') {
                good_ = false;
                return 0;
            }
            value = value * 10 + (rest_.front() - '0');
            rest_.remove_prefix(1);
        }
        return value;
    }

    /// One of `characters`, or 0.
    char any_of(std::string_view characters)
    {
        if (rest_.empty() || characters.find(rest_.front()) == std::string_view::npos) {
            return 0;
        }
        const char found = rest_.front();
        rest_.remove_prefix(1);
        return found;
    }

    char expect(std::string_view characters)
    {
        const char found = any_of(characters);
        good_ = good_ && found != 0;
        return found;
    }

    [[nodiscard]] bool complete() const { return good_ && rest_.empty(); }

private:
    std::string_view rest_;
    bool good_ = true;
};

/// RFC 3339, section 5.6.
std::optional<std::int64_t> parse_rfc_3339(std::string_view text)
{
    scanner scan{text};

    const int years = scan.number(4);
    scan.expect("-");
    const int months = scan.number(2);
    scan.expect("-");
    const int days = scan.number(2);
    scan.expect("Tt ");
    const int hours = scan.number(2);
    scan.expect(":");
    const int minutes = scan.number(2);
    scan.expect(":");
    const int seconds = scan.number(2);

    if (scan.any_of(".") != 0) {
        scan.expect("0123456789");
        while (scan.any_of("0123456789") != 0) {
        }
    }

    std::int64_t offset = 0;
    if (const char sign = scan.expect("Zz+-"); sign == '+' || sign == '-') {
        const int offset_hours = scan.number(2);
        scan.expect(":");
        const int offset_minutes = scan.number(2);
        if (offset_hours > 23 || offset_minutes > 59) {
            return std::nullopt;
        }
        offset = (offset_hours * hour + offset_minutes * minute) * (sign == '+' ? 1 : -1);
    }

    using namespace std::chrono;
    const year_month_day date{year{years}, month{static_cast<unsigned>(months)},
                              std::chrono::day{static_cast<unsigned>(days)}};
    if (!scan.complete() || !date.ok() || hours > 23 || minutes > 59 || seconds > 60) {
        return std::nullopt;
    }

    const std::int64_t time = sys_days{date}.time_since_epoch().count() * cli::day + hours * cli::hour
                              + minutes * cli::minute + seconds - offset;

    // A leap second comes last of a day in UTC, and Unix time does not count it.
    if (seconds == 60 && time % cli::day != 0) {
        return std::nullopt;
    }
    return time;
}

/// All of `text` as a number, or the error.
template <typename Number>
std::errc parse_number(std::string_view text, Number &out)
{
    const char *end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, out);
    return error == std::errc{} && stopped != end ? std::errc::invalid_argument : error;
}

bad_value bad_text(std::string_view text, std::string_view problem)
{
    return bad_value{fmt::format("{} {}", quote_value(text), problem)};
}

}  // namespace

std::int64_t parse_time(std::string_view text)
{
    std::int64_t time = 0;

    const std::errc error = parse_number(text, time);
    if (error == std::errc::invalid_argument) {
        const auto parsed = parse_rfc_3339(text);
        if (!parsed) {
            throw bad_text(text, "is neither Unix seconds nor a date and time such as 2026-12-31T23:59:59Z");
        }
        time = *parsed;
    }

    if (error == std::errc::result_out_of_range || time > max_time) {
        throw bad_text(text, "lies outside the years 1970 to 9999");
    }
    if (time <= 0) {
        throw bad_text(text, "is not later than 1970-01-01T00:00:00Z; for no limit, leave the time out");
    }
    return time;
}

std::int64_t parse_duration(std::string_view text)
{
    const auto unit = [&]() -> std::int64_t {
        switch (text.empty() ? '\0' : text.back()) {
        case 's': return 1;
        case 'm': return minute;
        case 'h': return hour;
        case 'd': return day;
        case 'w': return 7 * day;
        case 'M': return 30 * day;
        case 'y': return 365 * day;
        default: return 0;
        }
    }();

    std::uint32_t number = 0;
    if (unit == 0 || parse_number(text.substr(0, text.size() - 1), number) == std::errc::invalid_argument) {
        throw bad_text(text, "is not a number with a unit: s, m (minutes), h, d, w, M (30 days) or y (365 days)");
    }
    if (parse_number(text.substr(0, text.size() - 1), number) != std::errc{} || number > max_duration / unit) {
        throw bad_text(text, "is longer than 8000 years");
    }
    return number * unit;
}

std::string format_time(std::int64_t time)
{
    using namespace std::chrono;

    const sys_seconds instant{seconds{time}};
    const auto midnight = floor<days>(instant);
    const year_month_day date{midnight};
    const hh_mm_ss clock{instant - midnight};

    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                       static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                       clock.minutes().count(), clock.seconds().count());
}

std::string format_duration(std::int64_t seconds)
{
    const auto in_units = [](std::int64_t first, const char *first_unit, std::int64_t second, const char *second_unit) {
        return second != 0 ? fmt::format("{}{} {}{}", first, first_unit, second, second_unit)
                           : fmt::format("{}{}", first, first_unit);
    };

    if (seconds >= day) {
        return in_units(seconds / day, "d", seconds % day / hour, "h");
    }
    if (seconds >= hour) {
        return in_units(seconds / hour, "h", seconds % hour / minute, "m");
    }
    if (seconds >= minute) {
        return in_units(seconds / minute, "m", seconds % minute, "s");
    }
    return fmt::format("{}s", seconds);
}

std::size_t parse_size(std::string_view text)
{
    unsigned shift = 0;
    std::string_view digits = text;
    switch (text.empty() ? '\0' : text.back()) {
    case 'k':
    case 'K': shift = 10; break;
    case 'm':
    case 'M': shift = 20; break;
    case 'g':
    case 'G': shift = 30; break;
    default: break;
    }
    if (shift != 0) {
        digits.remove_suffix(1);
    }

    std::uint64_t number = 0;
    if (parse_number(digits, number) != std::errc{} || number > (std::uint64_t{1} << 46) >> shift) {
        throw bad_text(text, "is not a size: bytes, or a number with k, m or g, up to 64 TiB");
    }
    return number << shift;
}

std::uint64_t parse_count(std::string_view text, std::uint64_t largest)
{
    std::uint64_t number = 0;
    if (parse_number(text, number) != std::errc{} || number == 0 || number > largest) {
        throw bad_text(text, fmt::format("is not a whole number from 1 to {}", largest));
    }
    return number;
}

}  // namespace pat::cli
