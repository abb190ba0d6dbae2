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
#include <utility>

namespace pat {

/// Little-endian integers at byte offsets: the only place that knows the byte order of the store.
template <std::integral T>
[[nodiscard]] inline T load_le(const std::byte *from) noexcept
{
    T value;
    std::memcpy(&value, from, sizeof value);

    if constexpr (std::endian::native == std::endian::big) {
        auto *bytes = reinterpret_cast<std::byte *>(&value);
        for (std::size_t i = 0; i < sizeof value / 2; i++) {
            std::swap(bytes[i], bytes[sizeof value - 1 - i]);
        }
    }

    return value;
}

template <std::integral T>
inline void store_le(std::byte *to, T value) noexcept
{
    if constexpr (std::endian::native == std::endian::big) {
        auto *bytes = reinterpret_cast<std::byte *>(&value);
        for (std::size_t i = 0; i < sizeof value / 2; i++) {
            std::swap(bytes[i], bytes[sizeof value - 1 - i]);
        }
    }

    std::memcpy(to, &value, sizeof value);
}

[[nodiscard]] inline std::span<const std::byte> bytes_of(std::string_view text) noexcept
{
    return {reinterpret_cast<const std::byte *>(text.data()), text.size()};
}

[[nodiscard]] inline std::string_view text_of(std::span<const std::byte> bytes) noexcept
{
    return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

/// The first `length` characters, and what follows them. (`substr` can throw, which needs libstdc++ at run time.)
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

/// A set of byte values, built at compile time; membership is one load and one shift.
class byte_set {
public:
    constexpr explicit byte_set(std::string_view members) noexcept
    {
        for (char c : members) {
            add(c);
        }
    }

    [[nodiscard]] constexpr bool has(char c) const noexcept
    {
        auto byte = static_cast<unsigned char>(c);
        return (words_[byte / 64] >> (byte % 64) & 1) != 0;
    }

    /// True if every character of `text` is a member (so also for an empty text).
    [[nodiscard]] constexpr bool has_all(std::string_view text) const noexcept
    {
        return std::all_of(text.begin(), text.end(), [this](char c) { return has(c); });
    }

private:
    constexpr void add(char c) noexcept
    {
        auto byte = static_cast<unsigned char>(c);
        words_[byte / 64] |= std::uint64_t{1} << (byte % 64);
    }

    std::array<std::uint64_t, 4> words_{};
};

}  // namespace pat
