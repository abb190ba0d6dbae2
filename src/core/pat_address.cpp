#include "core/pat_address.h"

#include "core/pat_bytes.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include <arpa/inet.h>

namespace pat {

namespace {

constexpr std::size_t cidr_header_length = 2;

/// The prefix of IPv4-mapped IPv6 addresses, ::ffff:0:0/96.
constexpr unsigned mapped_prefix_bits = 96;

constexpr std::size_t size_of(address_family family) noexcept
{
    return family == address_family::v4 ? 4 : family == address_family::v6 ? 16 : 0;
}

/// The range at the start of `cidrs`.
struct cidr_view {
    address_family family;
    unsigned bits;
    std::span<const std::byte> bytes;
};

cidr_view first_of(std::span<const std::byte> cidrs) noexcept
{
    const auto family = static_cast<address_family>(cidrs[0]);
    return {family, std::to_integer<unsigned>(cidrs[1]), cidrs.subspan(cidr_header_length, size_of(family))};
}

std::span<const std::byte> after(std::span<const std::byte> cidrs, const cidr_view &cidr) noexcept
{
    return cidrs.subspan(cidr_header_length + cidr.bytes.size());
}

bool same_bits(std::span<const std::byte> a, std::span<const std::byte> b, unsigned bits) noexcept
{
    const std::size_t whole = bits / 8;

    if (!std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(whole), b.begin())) {
        return false;
    }

    const unsigned rest = bits % 8;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == std::byte{0};
}

/// Null-terminates `text` for inet_pton(); false if it cannot be an address.
template <std::size_t Size>
bool terminate(std::string_view text, std::array<char, Size> &out) noexcept
{
    if (text.size() >= Size || text.find('\0') != std::string_view::npos) {
        return false;
    }
    std::ranges::copy(text, out.begin());
    out[text.size()] = '\0';
    return true;
}

/// Like parse_address(), without folding IPv4-mapped addresses.
std::optional<address> parse_literal(std::string_view text) noexcept
{
    std::array<char, INET6_ADDRSTRLEN> terminated;
    if (!terminate(text, terminated)) {
        return std::nullopt;
    }

    address result;
    if (inet_pton(AF_INET, terminated.data(), result.bytes.data()) == 1) {
        result.family = address_family::v4;
        return result;
    }
    if (inet_pton(AF_INET6, terminated.data(), result.bytes.data()) == 1) {
        result.family = address_family::v6;
        return result;
    }
    return std::nullopt;
}

}  // namespace

address make_address(std::span<const std::byte> network_order) noexcept
{
    constexpr std::array<std::byte, 12> mapped{std::byte{0}, std::byte{0}, std::byte{0},    std::byte{0},
                                               std::byte{0}, std::byte{0}, std::byte{0},    std::byte{0},
                                               std::byte{0}, std::byte{0}, std::byte{0xff}, std::byte{0xff}};

    address result;

    if (network_order.size() == 16 && std::equal(mapped.begin(), mapped.end(), network_order.begin())) {
        network_order = network_order.subspan(mapped.size());
    }

    if (network_order.size() == 4) {
        result.family = address_family::v4;
    } else if (network_order.size() == 16) {
        result.family = address_family::v6;
    } else {
        return result;
    }

    std::ranges::copy(network_order, result.bytes.begin());
    return result;
}

std::optional<address> parse_address(std::string_view text) noexcept
{
    auto literal = parse_literal(text);
    if (!literal) {
        return std::nullopt;
    }
    return make_address({literal->bytes.data(), size_of(literal->family)});
}

cidr_error parse_cidr(std::string_view text, cidr &out) noexcept
{
    const std::size_t slash = std::min(text.find('/'), text.size());
    const auto literal = parse_literal(head(text, slash));
    if (!literal) {
        return cidr_error::syntax;
    }

    auto bits = static_cast<unsigned>(size_of(literal->family) * 8);

    if (slash < text.size()) {
        const std::string_view digits = tail(text, slash + 1);
        unsigned number = 0;
        const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), number);
        if (parsed.ec != std::errc{} || parsed.ptr != digits.data() + digits.size() || number > bits) {
            return cidr_error::syntax;
        }
        bits = number;
    }

    address base = *literal;
    const address folded = make_address({literal->bytes.data(), size_of(literal->family)});
    if (folded.family != base.family && bits >= mapped_prefix_bits) {
        base = folded;
        bits -= mapped_prefix_bits;
    }

    const std::size_t size = size_of(base.family);
    for (std::size_t bit = bits; bit < size * 8; bit++) {
        if ((base.bytes[bit / 8] & std::byte{0x80} >> (bit % 8)) != std::byte{0}) {
            return cidr_error::host_bits;
        }
    }

    out.bytes[0] = static_cast<std::byte>(base.family);
    out.bytes[1] = static_cast<std::byte>(bits);
    std::copy_n(base.bytes.begin(), size, out.bytes.begin() + cidr_header_length);
    out.length = cidr_header_length + size;
    return cidr_error::none;
}

std::span<const std::byte> format_cidr(std::span<const std::byte> cidrs, std::array<char, max_cidr_text_length> &text,
                                       std::size_t &text_length) noexcept
{
    const cidr_view cidr = first_of(cidrs);

    std::array<char, INET6_ADDRSTRLEN> literal{};
    inet_ntop(cidr.family == address_family::v4 ? AF_INET : AF_INET6, cidr.bytes.data(), literal.data(),
              literal.size());

    // std::to_chars would make the module export its table of digits.
    const int length = std::snprintf(text.data(), text.size(), "%s/%u", literal.data(), cidr.bits);
    text_length = static_cast<std::size_t>(length);
    return after(cidrs, cidr);
}

bool are_cidrs(std::span<const std::byte> cidrs) noexcept
{
    while (!cidrs.empty()) {
        if (cidrs.size() < cidr_header_length) {
            return false;
        }
        const std::size_t size = size_of(static_cast<address_family>(cidrs[0]));
        if (size == 0 || std::to_integer<std::size_t>(cidrs[1]) > size * 8
            || cidrs.size() < cidr_header_length + size) {
            return false;
        }
        cidrs = cidrs.subspan(cidr_header_length + size);
    }
    return true;
}

bool in_cidrs(std::span<const std::byte> cidrs, const address &peer) noexcept
{
    while (!cidrs.empty()) {
        const cidr_view cidr = first_of(cidrs);
        if (cidr.family == peer.family && same_bits(cidr.bytes, peer.bytes, cidr.bits)) {
            return true;
        }
        cidrs = after(cidrs, cidr);
    }
    return false;
}

}  // namespace pat
