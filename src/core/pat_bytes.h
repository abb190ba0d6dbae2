#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace pat {

static_assert(std::endian::native == std::endian::little, "a store has the byte order of LMDB's own files");

/// Integers of the store, at any alignment.
template <std::integral T>
[[nodiscard]] inline T load_le(const std::byte *bytes) noexcept
{
    T value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

template <std::integral T>
inline void store_le(std::byte *bytes, T value) noexcept
{
    std::memcpy(bytes, &value, sizeof value);
}

/// Loads eight bytes as a number that sorts as they do.
[[nodiscard]] inline std::uint64_t load_be64(const std::byte *bytes) noexcept
{
    return __builtin_bswap64(load_le<std::uint64_t>(bytes));
}

/// Compares keys in LMDB's order: by bytes, then by length. Most differ in their first eight bytes.
[[nodiscard]] inline int compare_keys(std::span<const std::byte> first, std::span<const std::byte> second) noexcept
{
    if (first.size() >= sizeof(std::uint64_t) && second.size() >= sizeof(std::uint64_t)) {
        const auto word = load_be64(first.data());
        const auto other = load_be64(second.data());
        if (word != other) {
            return word < other ? -1 : 1;
        }
    }
    const std::size_t common = std::min(first.size(), second.size());
    const int order = common == 0 ? 0 : std::memcmp(first.data(), second.data(), common);
    return order != 0 ? order : first.size() < second.size() ? -1 : first.size() > second.size() ? 1 : 0;
}

[[nodiscard]] inline std::span<const std::byte> bytes_of(std::string_view text) noexcept
{
    return {reinterpret_cast<const std::byte *>(text.data()), text.size()};
}

[[nodiscard]] inline std::string_view text_of(std::span<const std::byte> bytes) noexcept
{
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

/// The first `length` characters, and the rest. (`substr` can throw, which needs libstdc++ at run time.)
[[nodiscard]] constexpr std::string_view head(std::string_view text, std::size_t length) noexcept
{
    text.remove_suffix(text.size() - length);
    return text;
}

[[nodiscard]] constexpr std::string_view tail(std::string_view text, std::size_t length) noexcept
{
    text.remove_prefix(length);
    return text;
}

/// A set of byte values, built at compile time.
class byte_set {
public:
    consteval explicit byte_set(std::string_view members) noexcept
    {
        for (const char c : members) {
            has_[static_cast<unsigned char>(c)] = 1;
        }
    }

    [[nodiscard]] constexpr bool has(char c) const noexcept { return has_[static_cast<unsigned char>(c)] != 0; }

    /// Whether every character of `text` is a member; true if it is empty. Does not stop at the first that is not: a
    /// token is short, and almost always valid.
    [[nodiscard]] constexpr bool has_all(std::string_view text) const noexcept
    {
        unsigned result = 1;
#pragma GCC unroll 8
        for (const char c : text) {
            result &= has_[static_cast<unsigned char>(c)];
        }
        return result != 0;
    }

private:
    std::array<std::uint8_t, 256> has_{};
};

}  // namespace pat
