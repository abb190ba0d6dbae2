#include "core/pat_rules.h"

#include "core/pat_address.h"
#include "core/pat_bytes.h"
#include "core/pat_record.h"

#include <algorithm>

/// The rules for the values of records.
namespace pat {

namespace {

constexpr std::size_t claim_header_length = 3;

constexpr byte_set id_characters{"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._:@-"};
constexpr byte_set claim_name_characters{"0123456789abcdefghijklmnopqrstuvwxyz_"};

bool is_scope_character(char c) noexcept
{
    return c > 0x20 && c < 0x7f && c != '"' && c != '\\';
}

bool are_scopes(std::string_view scopes) noexcept
{
    if (scopes.empty()) {
        return true;
    }
    for (std::size_t space; (space = scopes.find(' ')) != std::string_view::npos; scopes.remove_prefix(space + 1)) {
        if (!is_scope(head(scopes, space))) {
            return false;
        }
    }
    return is_scope(scopes);
}

bool claims_are_valid(std::span<const std::byte> claims) noexcept
{
    if (!are_claims(claims)) {
        return false;
    }
    while (!claims.empty()) {
        const token_claim claim = take_claim(claims);
        if (!is_claim_name(claim.name) || has_control(claim.value)) {
            return false;
        }
        for (auto others = claims; !others.empty();) {
            if (take_claim(others).name == claim.name) {
                return false;
            }
        }
    }
    return true;
}

}  // namespace

bool are_claims(std::span<const std::byte> claims) noexcept
{
    while (!claims.empty()) {
        if (claims.size() < claim_header_length) {
            return false;
        }
        const std::size_t length =
            claim_header_length + std::to_integer<std::size_t>(claims[0]) + load_le<std::uint16_t>(&claims[1]);
        if (claims.size() < length) {
            return false;
        }
        claims = claims.subspan(length);
    }
    return true;
}

codec_error validate(const token_record &record) noexcept
{
    if (!is_id(record.id)) {
        return codec_error::id;
    }
    if (record.subject.empty() || record.subject.size() > max_subject_length || has_control(record.subject)) {
        return codec_error::subject;
    }
    if (record.name.size() > max_name_length || has_control(record.name)) {
        return codec_error::name;
    }
    if (!are_scopes(record.scopes)) {
        return codec_error::scopes;
    }
    if (!are_cidrs(record.cidrs)) {
        return codec_error::cidrs;
    }
    if (!claims_are_valid(record.claims)) {
        return codec_error::claims;
    }
    if (!is_time(record.issued_at) || !is_time(record.not_before) || !is_time(record.expires_at)
        || !is_time(record.revoked_at) || !is_time(record.local_revoked_at)) {
        return codec_error::time;
    }
    return codec_error::none;
}

bool has_control(std::string_view text) noexcept
{
    // Eight bytes at a time, whose top bits tell: of x - n if x < n, of x - 1 if x is 0, both only where x had none.
    constexpr std::uint64_t ones = ~std::uint64_t{0} / 0xff;
    constexpr std::uint64_t tops = ones * 0x80;
    const auto found = [](std::uint64_t eight) {
        const std::uint64_t deletes = eight ^ ones * 0x7f;
        return (((eight - ones * 0x20) & ~eight) | ((deletes - ones) & ~deletes)) & tops;
    };

    std::uint64_t any = 0;
    std::uint64_t eight = 0;
    for (; text.size() >= sizeof eight; text.remove_prefix(sizeof eight)) {
        std::memcpy(&eight, text.data(), sizeof eight);
        any |= found(eight);
    }
    if (!text.empty()) {
        eight = ones * ' ';
        std::memcpy(&eight, text.data(), text.size());
        any |= found(eight);
    }
    return any != 0;
}

bool is_id(std::string_view text) noexcept
{
    return !text.empty() && text.size() <= max_id_length && id_characters.has_all(text);
}

bool is_scope(std::string_view text) noexcept
{
    return !text.empty() && std::all_of(text.begin(), text.end(), is_scope_character);
}

bool is_claim_name(std::string_view text) noexcept
{
    return !text.empty() && text.size() <= max_claim_name_length && claim_name_characters.has_all(text);
}

token_claim take_claim(std::span<const std::byte> &claims) noexcept
{
    const auto name_length = std::to_integer<std::size_t>(claims[0]);
    const std::size_t value_length = load_le<std::uint16_t>(&claims[1]);

    const std::string_view texts = text_of(claims.subspan(claim_header_length, name_length + value_length));
    claims = claims.subspan(claim_header_length + texts.size());
    return {head(texts, name_length), tail(texts, name_length)};
}

bool append_claim(const token_claim &claim, record_buffer &buffer, std::size_t &length) noexcept
{
    const std::size_t needed = claim_header_length + claim.name.size() + claim.value.size();

    if (!is_claim_name(claim.name) || has_control(claim.value) || needed > buffer.size() - length) {
        return false;
    }

    buffer[length] = static_cast<std::byte>(claim.name.size());
    store_le(&buffer[length + 1], static_cast<std::uint16_t>(claim.value.size()));

    std::byte *end = std::ranges::copy(bytes_of(claim.name), &buffer[length + claim_header_length]).out;
    std::ranges::copy(bytes_of(claim.value), end);

    length += needed;
    return true;
}

}  // namespace pat
