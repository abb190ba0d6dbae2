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
__attribute__((target("sse4.2"))) std::uint32_t crc32c_by_processor(std::span<const std::byte> bytes,
                                                                    std::uint32_t before) noexcept
{
    constexpr std::size_t word = sizeof(std::uint64_t);

    std::uint64_t crc = ~before;
    for (; bytes.size() >= word; bytes = bytes.subspan(word)) {
        crc = _mm_crc32_u64(crc, load_le<std::uint64_t>(bytes.data()));
    }
    auto rest = static_cast<std::uint32_t>(crc);
    for (const std::byte byte : bytes) {
        rest = _mm_crc32_u8(rest, std::to_integer<std::uint8_t>(byte));
    }
    return ~rest;
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
        return crc32c_by_processor(bytes, before);
    }
#endif
    return crc32c_by_table(bytes, before);
}

}  // namespace pat
