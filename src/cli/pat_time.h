#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// Numbers, times and durations as text. All times are Unix seconds, UTC.
namespace pat::cli {

/// Reads Unix seconds, or a date and time of RFC 3339 such as `2026-12-31T23:59:59Z`; a fraction of a second is cut
/// off. Throws bad_value, also for what no record may have: 0 and less, which would mean that there is no limit, and
/// times past the year 9999.
[[nodiscard]] std::int64_t parse_time(std::string_view text);

/// Reads a number and a unit: s, m, h, d, w, M (30 days) or y (365 days), as nginx has them. Throws bad_value.
[[nodiscard]] std::int64_t parse_duration(std::string_view text);

/// RFC 3339, in UTC.
[[nodiscard]] std::string format_time(std::int64_t time);

/// A duration to its two largest units: `89d 23h`, `45s`.
[[nodiscard]] std::string format_duration(std::int64_t seconds);

/// Reads a size as nginx does: bytes, or with `k`, `m` or `g`. Throws bad_value.
[[nodiscard]] std::size_t parse_size(std::string_view text);

/// Reads a whole number from 1 to `largest`, in decimal digits. Throws bad_value.
[[nodiscard]] std::uint64_t parse_count(std::string_view text, std::uint64_t largest);

}  // namespace pat::cli
