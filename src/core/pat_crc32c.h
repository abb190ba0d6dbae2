#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace pat {

/// CRC-32C (Castagnoli; RFC 9260, appendix A), the checksum of records: processors compute it in hardware, so that
/// checking a record costs next to nothing. To continue after other bytes, pass their CRC.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0) noexcept;

/// That of two pieces, one behind the other.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> first, std::span<const std::byte> second) noexcept;

/// The first in software, for processors that lack it.
[[nodiscard]] std::uint32_t crc32c_by_table(std::span<const std::byte> bytes, std::uint32_t before = 0) noexcept;

}  // namespace pat
