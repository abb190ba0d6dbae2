#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// The rules for values that the codec and `validate` (pat_record.h) share.
namespace pat {

/// Year 9999, the last that RFC 3339 can write.
inline constexpr std::int64_t max_time = 253402300799;

/// True for Unix seconds that a record may hold.
[[nodiscard]] constexpr bool is_time(std::int64_t time) noexcept
{
    return time >= 0 && time <= max_time;
}

/// True if `claims` is a sequence of whole claims in binary form.
[[nodiscard]] bool are_claims(std::span<const std::byte> claims) noexcept;

}  // namespace pat
