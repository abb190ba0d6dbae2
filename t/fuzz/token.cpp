/// Authorization values, tokens, their checksum and their digest, against regular expressions, OpenSSL's base64, a CRC
/// of one bit at a time, and OpenSSL's HMAC. Input: a prefix, which is also the user name for Basic, the end of a line,
/// and a value.

#include "core/pat_digest.h"
#include "core/pat_token.h"
#include "pat_fuzz.h"
#include "pat_pattern.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include <openssl/evp.h>
#include <openssl/hmac.h>

using namespace pat;
using fuzz::pattern;

namespace {

std::string right_checksum(std::string_view text)
{
    std::uint32_t crc = 0xffffffff;
    for (const char c : text) {
        crc ^= static_cast<unsigned char>(c);
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) != 0 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        }
    }
    crc = ~crc;

    std::string digits(6, '0');
    for (auto digit = digits.rbegin(); digit != digits.rend(); digit++, crc /= 62) {
        const auto value = static_cast<char>(crc % 62);
        *digit = static_cast<char>(value < 10 ? '0' + value : value < 36 ? 'A' + value - 10 : 'a' + value - 36);
    }
    return digits;
}

/// Credentials of a scheme, and whatever begins with that scheme.
struct scheme_patterns {
    pattern credentials;
    pattern name;

    explicit scheme_patterns(const std::string &word)
        : credentials{("^[ \t]*" + word + " +([A-Za-z0-9._~+/-]+=*)[ \t]*$").c_str()},
          name{("^[ \t]*" + word + "([^A-Za-z0-9!#$%&'*+.^_`|~-]|$)").c_str()}
    {
    }
};

struct expected_credential {
    credential_kind kind = credential_kind::none;
    std::string token;
};

expected_credential expect_token(std::string_view text)
{
    static const pattern token{"^[A-Za-z0-9._~+/-]+=*$"};

    if (text.size() < 16 || text.size() > 512 || !token.matches(text)) {
        return {credential_kind::malformed, ""};
    }
    return {credential_kind::token, std::string{text}};
}

/// What a text in base64 stands for, if OpenSSL makes that text of it.
std::optional<std::string> decode_base64(std::string_view text)
{
    const auto *in = reinterpret_cast<const unsigned char *>(text.data());
    std::string decoded(text.size() + 1, '\0');
    const int length =
        EVP_DecodeBlock(reinterpret_cast<unsigned char *>(decoded.data()), in, static_cast<int>(text.size()));
    if (length < 0) {
        return std::nullopt;
    }
    decoded.resize(static_cast<std::size_t>(length - text.ends_with("=") - text.ends_with("==")));

    std::string again(text.size() + 5, '\0');
    const auto *out = reinterpret_cast<const unsigned char *>(decoded.data());
    again.resize(static_cast<std::size_t>(
        EVP_EncodeBlock(reinterpret_cast<unsigned char *>(again.data()), out, static_cast<int>(decoded.size()))));
    return again == text ? std::optional{decoded} : std::nullopt;
}

expected_credential expect_basic(std::string_view text, std::string_view user)
{
    const auto is_control = [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; };

    const std::optional<std::string> user_pass = decode_base64(text);
    const std::size_t colon = user_pass ? user_pass->find(':') : std::string::npos;
    if (colon == std::string::npos || user_pass->size() > 1023) {
        return {credential_kind::malformed, ""};
    }
    const std::string name = user_pass->substr(0, colon);
    if (std::ranges::any_of(name, is_control)) {
        return {credential_kind::malformed, ""};
    }
    return user.empty() || name == user ? expect_token(user_pass->substr(colon + 1)) : expected_credential{};
}

expected_credential expect_credential(std::string_view value, const credential_schemes &schemes)
{
    static const scheme_patterns bearer{"[Bb][Ee][Aa][Rr][Ee][Rr]"};
    static const scheme_patterns token{"[Tt][Oo][Kk][Ee][Nn]"};
    static const scheme_patterns basic{"[Bb][Aa][Ss][Ii][Cc]"};

    const struct {
        const scheme_patterns &patterns;
        bool is_accepted;
        bool is_basic;
    } known[] = {{bearer, schemes.bearer, false}, {token, schemes.token, false}, {basic, schemes.basic, true}};

    for (const auto &scheme : known) {
        if (!scheme.is_accepted || !scheme.patterns.name.matches(value)) {
            continue;
        }
        const auto text = scheme.patterns.credentials.find(value);
        if (!text) {
            return {credential_kind::malformed, ""};
        }
        return scheme.is_basic ? expect_basic(*text, schemes.user) : expect_token(*text);
    }
    return {};
}

void try_authorization(std::string_view value, std::string_view user)
{
    for (unsigned accepted = 0; accepted < 8; accepted++) {
        const credential_schemes schemes{
            .bearer = (accepted & 1) != 0, .token = (accepted & 2) != 0, .basic = (accepted & 4) != 0, .user = user};
        const expected_credential right = expect_credential(value, schemes);

        basic_buffer buffer;
        const credential found = parse_authorization(value, schemes, buffer);
        expect(found.kind == right.kind);
        expect(found.token == right.token);
    }
}

void try_token(std::string_view text, std::string_view prefix)
{
    static const pattern b64token{"^[A-Za-z0-9._~+/-]+=*$"};
    static const pattern of_prefix{"^[A-Za-z0-9_.-]{1,32}$"};
    static const pattern base62{"^[0-9A-Za-z]{32}$"};

    expect(is_token(text) == (text.size() >= 16 && text.size() <= 512 && b64token.matches(text)));
    expect(is_prefix(prefix) == of_prefix.matches(prefix));
    if (!is_prefix(prefix)) {
        return;
    }

    const std::string_view body = text.substr(0, text.size() - std::min<std::size_t>(text.size(), 6));
    const bool has_form = body.starts_with(prefix) && base62.matches(body.substr(prefix.size()));
    const std::string sealed = std::string{body} + right_checksum(body);
    expect(is_issued_form(sealed, prefix) == has_form);
    expect(is_issued_form(text, prefix) == (has_form && text == sealed));
}

void try_generating(std::string_view prefix, std::string_view random)
{
    const auto source = [](void *left, std::span<std::byte> out) noexcept {
        auto &bytes = *static_cast<std::string_view *>(left);
        if (bytes.size() < out.size()) {
            return false;
        }
        std::ranges::copy(bytes_of(head(bytes, out.size())), out.begin());
        bytes.remove_prefix(out.size());
        return true;
    };
    if (const auto token = generate_token(prefix, source, &random)) {
        expect(is_token(token->text()));
        expect(is_issued_form(token->text(), prefix));
        try_authorization(std::string{"Bearer "}.append(token->text()), prefix);
    }
}

void try_digest(std::string_view contents, std::string_view token)
{
    const auto key = parse_pepper(contents);
    std::array<std::byte, digest_length> right{};
    auto *out = reinterpret_cast<unsigned char *>(right.data());
    if (!key) {
        EVP_Digest(token.data(), token.size(), out, nullptr, EVP_sha256(), nullptr);
        expect(token_hasher{}(token) == right);
        return;
    }

    expect(key->length >= min_pepper_length && key->length <= max_pepper_length);
    HMAC(EVP_sha256(), key->bytes.data(), static_cast<int>(key->length),
         reinterpret_cast<const unsigned char *>(token.data()), token.size(), out, nullptr);
    expect(token_hasher{*key}(token) == right);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};
    const std::string_view prefix = in.until('\n');
    const std::string_view value = in.rest();

    try_authorization(value, prefix);
    try_authorization(value, {});
    try_token(value, prefix);
    try_generating(prefix, value);
    try_digest(value, prefix);
    return 0;
}
