/// Addresses and ranges as text and in binary form. Input: a range, the end of a line, and an address.

#include "core/pat_address.h"
#include "pat_fuzz.h"

#include <array>
#include <optional>
#include <string>

#include <netdb.h>
#include <netinet/in.h>

using namespace pat;

namespace {

using bits128 = unsigned __int128;

/// An address as a number of 128 bits, an IPv4 address as an IPv4-mapped one; nothing for what is none. getaddrinfo(3)
/// takes more than the standards: those forms are left out.
std::optional<bits128> number_of(std::string_view text)
{
    const bool is_v6 = text.find(':') != std::string_view::npos;
    const std::string terminated{text};
    if (text.find_first_of(std::string_view{"%\0", 2}) != std::string_view::npos || text.empty()) {
        return std::nullopt;
    }
    if (!is_v6) {
        unsigned dots = 0;
        std::size_t begin = 0;
        for (std::size_t i = 0; i < text.size(); i++) {
            if (text[i] == '.') {
                dots++;
                begin = i + 1;
            } else if (text[i] < '0' || text[i] > '9' || (i > begin && text[begin] == '0')) {
                return std::nullopt;
            }
        }
        if (dots != 3) {
            return std::nullopt;
        }
    }

    addrinfo hints{};
    hints.ai_family = is_v6 ? AF_INET6 : AF_INET;
    hints.ai_flags = AI_NUMERICHOST;
    addrinfo *found = nullptr;
    if (getaddrinfo(terminated.c_str(), nullptr, &hints, &found) != 0) {
        return std::nullopt;
    }

    bits128 result = 0;
    if (is_v6) {
        for (const auto byte : reinterpret_cast<const sockaddr_in6 *>(found->ai_addr)->sin6_addr.s6_addr) {
            result = result << 8 | byte;
        }
    } else {
        result = bits128{0xffff} << 32 | ntohl(reinterpret_cast<const sockaddr_in *>(found->ai_addr)->sin_addr.s_addr);
    }
    freeaddrinfo(found);
    return result;
}

bits128 number_of(const address &peer)
{
    bits128 result = peer.family == address_family::v4 ? 0xffff : 0;
    for (std::size_t i = 0; i < (peer.family == address_family::v4 ? 4U : 16U); i++) {
        result = result << 8 | std::to_integer<unsigned>(peer.bytes[i]);
    }
    return result;
}

bool is_mapped(bits128 number)
{
    return number >> 32 == 0xffff;
}

/// The first `bits` of an address.
bits128 prefix_of(bits128 number, unsigned bits)
{
    return bits == 0 ? 0 : number >> (128 - bits);
}

void try_address(std::string_view text)
{
    const auto parsed = parse_address(text);
    const auto right = number_of(text);
    expect(parsed.has_value() == right.has_value());
    if (parsed) {
        expect(number_of(*parsed) == *right);
        expect((parsed->family == address_family::v4) == is_mapped(*right));
    }
}

struct right_range {
    cidr_error error;
    bits128 base = 0;
    unsigned bits = 0;  ///< of 128
};

right_range read_range(std::string_view text)
{
    const std::size_t slash = text.find('/');
    const auto base = number_of(text.substr(0, slash));
    if (!base) {
        return {cidr_error::syntax};
    }
    const unsigned before = text.find(':') == std::string_view::npos ? 96 : 0;
    unsigned bits = 128 - before;
    if (slash != std::string_view::npos) {
        const std::string_view digits = text.substr(slash + 1);
        if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) {
            return {cidr_error::syntax};
        }
        const std::size_t significant = std::min(digits.find_first_not_of('0'), digits.size());
        if (digits.size() - significant > 3) {
            return {cidr_error::syntax};
        }
        const unsigned number = digits.size() == significant
                                    ? 0
                                    : static_cast<unsigned>(std::stoul(std::string{digits.substr(significant)}));
        if (number > bits) {
            return {cidr_error::syntax};
        }
        bits = number;
    }
    bits += before;
    const bool has_more = bits < 128 && (*base << bits) != 0;
    return {has_more ? cidr_error::host_bits : cidr_error::none, *base, bits};
}

void try_range(std::string_view text, std::string_view peer_text)
{
    cidr range{};
    const right_range right = read_range(text);
    expect(parse_cidr(text, range) == right.error);
    if (right.error != cidr_error::none) {
        return;
    }
    expect(are_cidrs(range.view()) && !are_cidrs(range.view().first(range.length - 1)));

    std::array<char, max_cidr_text_length> written;
    std::size_t length = 0;
    expect(format_cidr(range.view(), written, length).empty());
    cidr again{};
    expect(parse_cidr({written.data(), length}, again) == cidr_error::none);
    expect(std::ranges::equal(again.view(), range.view()));

    const auto peer = parse_address(peer_text);
    const auto number = number_of(peer_text);
    if (peer) {
        // An IPv4 address is in no range of IPv6 addresses, not even in that of all IPv4-mapped ones and more.
        const bool right_family = (right.bits >= 96 && is_mapped(right.base)) == is_mapped(*number);
        expect(in_cidrs(range.view(), *peer)
               == (right_family && prefix_of(*number, right.bits) == prefix_of(right.base, right.bits)));
    }
    expect(!in_cidrs(range.view(), {}));
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};
    const std::string_view range = in.until('\n');
    const std::string_view peer = in.rest();

    try_address(peer);
    try_address(range);
    try_range(range, peer);
    return 0;
}
