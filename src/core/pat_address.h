#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

/// Addresses and address ranges. Binary form of a range, as stored in a record:
///
///     +--------+---------------+------------------------------------------+
///     | family | prefix length | address, 4 or 16 bytes in network order  |
///     | 4 or 6 | in bits       | bits past the prefix are zero            |
///     +--------+---------------+------------------------------------------+
namespace pat {

enum class address_family : std::uint8_t {
    none = 0,  ///< a peer without an address (a UNIX-domain socket): in no range
    v4 = 4,
    v6 = 6,
};

/// An address; the first 4 or all 16 bytes count.
struct address {
    address_family family = address_family::none;
    std::array<std::byte, 16> bytes{};
};

/// Makes an address of 4 or 16 bytes in network order. An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), by
/// which a dual-stack socket shows an IPv4 peer, becomes the IPv4 address.
[[nodiscard]] address make_address(std::span<const std::byte> network_order) noexcept;

/// Reads an address as text (RFC 4291, section 2.2, or dotted quad).
[[nodiscard]] std::optional<address> parse_address(std::string_view text) noexcept;

inline constexpr std::size_t max_cidr_length = 18;

/// A range in binary form.
struct cidr {
    std::array<std::byte, max_cidr_length> bytes;
    std::size_t length;

    [[nodiscard]] std::span<const std::byte> view() const noexcept { return {bytes.data(), length}; }
};

enum class cidr_error : std::uint8_t {
    none,
    syntax,     ///< not an address, or not followed by `/` and a prefix length that fits its family
    host_bits,  ///< bits past the prefix are set, so the author meant something else
};

/// Reads a range as text: `192.0.2.0/24`, `2001:db8::/32`, or an address alone.
[[nodiscard]] cidr_error parse_cidr(std::string_view text, cidr &out) noexcept;

inline constexpr std::size_t max_cidr_text_length = 48;

/// Writes the first range of `cidrs` as text, and returns the rest. `cidrs` must satisfy `are_cidrs` and not be empty.
std::span<const std::byte> format_cidr(std::span<const std::byte> cidrs, std::array<char, max_cidr_text_length> &text,
                                       std::size_t &text_length) noexcept;

/// Whether `cidrs` is a sequence of whole ranges in binary form.
[[nodiscard]] bool are_cidrs(std::span<const std::byte> cidrs) noexcept;

/// Whether one of `cidrs`, which must satisfy `are_cidrs`, contains `peer`.
[[nodiscard]] bool in_cidrs(std::span<const std::byte> cidrs, const address &peer) noexcept;

}  // namespace pat
