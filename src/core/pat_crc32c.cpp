#include "core/pat_crc32c.h"

#include "core/pat_bytes.h"

#include <array>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace pat {

namespace {

/// The remainder of each byte, for the polynomial 0x1EDC6F41 with its bits reversed.
constexpr auto remainders = [] {
    constexpr std::uint32_t polynomial = 0x82F63B78;

    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t byte = 0; byte < table.size(); byte++) {
        std::uint32_t remainder = byte;
        for (int bit = 0; bit < 8; bit++) {
            remainder = (remainder & 1) != 0 ? remainder >> 1 ^ polynomial : remainder >> 1;
        }
        table[byte] = remainder;
    }
    return table;
}();

#if defined(__x86_64__)
/// Two words at a time, and then what is left, of which each size there can be takes one step.
__attribute__((target("sse4.2"))) inline std::uint64_t add_by_processor(std::uint64_t crc,
                                                                        std::span<const std::byte> bytes) noexcept
{
    constexpr std::size_t word = sizeof(std::uint64_t);

    const std::byte *at = bytes.data();
    std::size_t left = bytes.size();
    for (; left >= 2 * word; left -= 2 * word, at += 2 * word) {
        crc = _mm_crc32_u64(_mm_crc32_u64(crc, load_le<std::uint64_t>(at)), load_le<std::uint64_t>(at + word));
    }
    if ((left & 8) != 0) {
        crc = _mm_crc32_u64(crc, load_le<std::uint64_t>(at));
        at += 8;
    }
    auto rest = static_cast<std::uint32_t>(crc);
    if ((left & 4) != 0) {
        rest = _mm_crc32_u32(rest, load_le<std::uint32_t>(at));
        at += 4;
    }
    if ((left & 2) != 0) {
        rest = _mm_crc32_u16(rest, load_le<std::uint16_t>(at));
        at += 2;
    }
    return (left & 1) != 0 ? _mm_crc32_u8(rest, load_le<std::uint8_t>(at)) : rest;
}

__attribute__((target("sse4.2"))) std::uint32_t
crc32c_by_processor(std::span<const std::byte> first, std::span<const std::byte> second, std::uint32_t before) noexcept
{
    return ~static_cast<std::uint32_t>(add_by_processor(add_by_processor(~before, first), second));
}
#endif

}  // namespace

std::uint32_t crc32c_by_table(std::span<const std::byte> bytes, std::uint32_t before) noexcept
{
    std::uint32_t crc = ~before;
    for (const std::byte byte : bytes) {
        crc = crc >> 8 ^ remainders[(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xff];
    }
    return ~crc;
}

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before) noexcept
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return crc32c_by_processor(bytes, {}, before);
    }
#endif
    return crc32c_by_table(bytes, before);
}

std::uint32_t crc32c(std::span<const std::byte> first, std::span<const std::byte> second) noexcept
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return crc32c_by_processor(first, second, 0);
    }
#endif
    return crc32c_by_table(second, crc32c_by_table(first));
}

}  // namespace pat
