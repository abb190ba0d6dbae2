#include "core/pat_token.h"

#include "core/pat_bytes.h"
#include "core/pat_record.h"

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

/// RFC 4648, section 4: the value of each digit.
constexpr std::uint8_t no_base64 = 0xff;

constexpr std::array<std::uint8_t, 256> base64_values = [] {
    std::array<std::uint8_t, 256> values{};
    values.fill(no_base64);
    std::uint8_t value = 0;
    for (const char digit : std::string_view{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"}) {
        values[static_cast<unsigned char>(digit)] = value++;
    }
    return values;
}();

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

/// The text behind the scheme at the start of `value` if that is the one of this lower-case name.
constexpr std::optional<std::string_view> after_scheme(std::string_view value, std::string_view lower) noexcept
{
    if (value.size() < lower.size() || !std::equal(lower.begin(), lower.end(), value.begin(), [](char want, char have) {
            return want == (have | 0x20);
        })) {
        return std::nullopt;
    }
    const std::string_view rest = tail(value, lower.size());
    return rest.empty() || !tchar.has(rest.front()) ? std::optional{rest} : std::nullopt;
}

/// Removes the spaces between a scheme and what follows; returns false if there are none.
constexpr bool skip_spaces(std::string_view &text) noexcept
{
    const bool has_space = text.starts_with(' ');
    while (text.starts_with(' ')) {
        text.remove_prefix(1);
    }
    return has_space;
}

constexpr credential malformed{credential_kind::malformed, {}};

credential parse_token(std::string_view text) noexcept
{
    return is_token(text) ? credential{credential_kind::token, text} : malformed;
}

/// RFC 7617, section 2: the scheme is followed by user-pass = user-id ":" password, in base64.
[[gnu::noinline]] credential parse_basic(std::string_view text, std::string_view user, basic_buffer &buffer) noexcept
{
    const std::optional<std::string_view> user_pass = buffer.decode(text);
    const std::size_t colon = user_pass ? user_pass->find(':') : std::string_view::npos;
    if (colon == std::string_view::npos) {
        return malformed;
    }
    const std::string_view name = head(*user_pass, colon);
    if (has_control(name)) {
        return malformed;
    }
    if (!user.empty() && name != user) {
        return {credential_kind::none, {}};
    }
    return parse_token(tail(*user_pass, colon + 1));
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

std::optional<std::string_view> basic_buffer::decode(std::string_view text) noexcept
{
    constexpr std::size_t group = 4;
    constexpr std::size_t bytes_of_group = 3;

    if (text.size() % group != 0 || text.size() / group > bytes_.size() / bytes_of_group) {
        return std::nullopt;
    }
    const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
    const std::string_view digits = head(text, text.size() - padding);
    length_ = text.size() / group * bytes_of_group - padding;

    std::uint32_t bits = 0;
    unsigned count = 0;
    char *out = bytes_.data();
    for (const char digit : digits) {
        const std::uint8_t value = base64_values[static_cast<unsigned char>(digit)];
        if (value == no_base64) {
            return std::nullopt;
        }
        bits = bits << 6 | value;
        count += 6;
        if (count >= 8) {
            count -= 8;
            *out++ = static_cast<char>(bits >> count & 0xff);
        }
    }

    // Bits that no byte has must be zero: otherwise, several texts would stand for the same bytes.
    if ((bits & ((std::uint32_t{1} << count) - 1)) != 0) {
        return std::nullopt;
    }
    return std::string_view{bytes_.data(), length_};
}

void basic_buffer::wipe() noexcept
{
    OPENSSL_cleanse(bytes_.data(), length_);
}

credential parse_authorization(std::string_view value, const credential_schemes &schemes, basic_buffer &buffer) noexcept
{
    value = trim(value);

    auto rest = schemes.bearer ? after_scheme(value, "bearer") : std::nullopt;
    if (!rest && schemes.token) {
        rest = after_scheme(value, "token");
    }
    if (rest) {
        return skip_spaces(*rest) ? parse_token(*rest) : malformed;
    }

    rest = schemes.basic ? after_scheme(value, "basic") : std::nullopt;
    if (rest) {
        return skip_spaces(*rest) ? parse_basic(*rest, schemes.user, buffer) : malformed;
    }
    return {credential_kind::none, {}};
}

credential parse_field(std::string_view value) noexcept
{
    return parse_value(trim(value));
}

credential parse_value(std::string_view value) noexcept
{
    return value.empty() ? credential{credential_kind::none, {}} : parse_token(value);
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
