#include "core/pat_token.h"

#include "core/pat_bytes.h"

#include <algorithm>
#include <cstdint>

#include <openssl/crypto.h>
#include <zlib.h>

namespace pat {

namespace {

constexpr std::string_view base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

constexpr std::uint32_t radix = base62.size();

constexpr byte_set base62_characters{base62};

/// RFC 6750, section 2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
constexpr byte_set b64token_characters{"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~+/"};

/// RFC 9110, section 5.6.2: the characters of an auth-scheme.
constexpr byte_set tchar{"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&'*+-.^_`|~"};

constexpr byte_set prefix_characters{"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-."};

using checksum = std::array<char, checksum_length>;

checksum checksum_of(std::string_view text) noexcept
{
    auto crc = static_cast<std::uint32_t>(
        crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef *>(text.data()), text.size()));

    checksum digits;
    for (std::size_t i = digits.size(); i-- > 0;) {
        digits[i] = base62[crc % radix];
        crc /= radix;
    }

    return digits;
}

constexpr bool is_blank(char c) noexcept
{
    return c == ' ' || c == '\t';
}

constexpr std::string_view trim(std::string_view text) noexcept
{
    while (!text.empty() && is_blank(text.front())) {
        text.remove_prefix(1);
    }
    while (!text.empty() && is_blank(text.back())) {
        text.remove_suffix(1);
    }
    return text;
}

/// The length of the scheme at the start of `value` if it is Bearer, or 0.
constexpr std::size_t bearer_length(std::string_view value) noexcept
{
    constexpr std::string_view lower = "bearer";

    if (value.size() < lower.size() || !std::equal(lower.begin(), lower.end(), value.begin(), [](char want, char have) {
            return want == (have | 0x20);
        })) {
        return 0;
    }
    return value.size() > lower.size() && tchar.has(value[lower.size()]) ? 0 : lower.size();
}

}  // namespace

bool is_token(std::string_view text) noexcept
{
    if (text.size() < min_token_length || text.size() > max_token_length) {
        return false;
    }

    while (text.back() == '=') {
        text.remove_suffix(1);
        if (text.empty()) {
            return false;
        }
    }

    return b64token_characters.has_all(text);
}

bool is_prefix(std::string_view text) noexcept
{
    return !text.empty() && text.size() <= max_prefix_length && prefix_characters.has_all(text);
}

bool is_issued_form(std::string_view text, std::string_view prefix) noexcept
{
    if (text.size() != prefix.size() + random_length + checksum_length || !text.starts_with(prefix)
        || !base62_characters.has_all(tail(text, prefix.size()))) {
        return false;
    }

    const checksum right = checksum_of(head(text, text.size() - checksum_length));

    return text.ends_with(std::string_view{right.data(), right.size()});
}

credential parse_authorization(std::string_view value) noexcept
{
    value = trim(value);

    const std::size_t scheme_length = bearer_length(value);
    if (scheme_length == 0) {
        return {credential_kind::none, {}};
    }

    std::string_view token = tail(value, scheme_length);

    if (!token.starts_with(' ')) {
        return {credential_kind::malformed, {}};
    }

    while (token.starts_with(' ')) {
        token.remove_prefix(1);
    }

    if (!is_token(token)) {
        return {credential_kind::malformed, {}};
    }

    return {credential_kind::bearer, token};
}

std::optional<issued_token> generate_token(std::string_view prefix, random_source random, void *context) noexcept
{
    if (!is_prefix(prefix)) {
        return std::nullopt;
    }

    issued_token token{};
    std::copy(prefix.begin(), prefix.end(), token.characters.begin());
    token.length = prefix.size();

    const std::size_t end = prefix.size() + random_length;

    // Discard bytes of 248 and more, so that each character is equally likely. A round falls short with a probability
    // of 2^-40, so a source that needs more than a few rounds is not random.
    constexpr unsigned fair = 256 / radix * radix;
    constexpr int max_rounds = 4;
    std::array<std::byte, 2 * random_length> bytes;

    for (int round = 0; round < max_rounds && token.length < end; round++) {
        if (!random(context, bytes)) {
            break;
        }
        for (std::byte byte : bytes) {
            auto number = std::to_integer<unsigned>(byte);
            if (number < fair && token.length < end) {
                token.characters[token.length++] = base62[number % radix];
            }
        }
    }

    OPENSSL_cleanse(bytes.data(), bytes.size());

    if (token.length < end) {
        OPENSSL_cleanse(token.characters.data(), token.characters.size());
        return std::nullopt;
    }

    const checksum sum = checksum_of(token.text());
    std::copy(sum.begin(), sum.end(), token.characters.begin() + static_cast<std::ptrdiff_t>(token.length));
    token.length += sum.size();

    return token;
}

}  // namespace pat
