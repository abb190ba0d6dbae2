/// Authorization values, tokens, their checksum and their digest, against a regular expression, a CRC of one bit at a
/// time, and OpenSSL's HMAC. Input: a prefix, the end of a line, and a value.

#include "core/pat_digest.h"
#include "core/pat_token.h"
#include "pat_fuzz.h"
#include "pat_pattern.h"

#include <algorithm>
#include <array>
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

void try_authorization(std::string_view value)
{
    static const pattern bearer{"^[ \t]*[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)[ \t]*$"};
    static const pattern scheme{"^[ \t]*[Bb][Ee][Aa][Rr][Ee][Rr]([^A-Za-z0-9!#$%&'*+.^_`|~-]|$)"};

    const credential found = parse_authorization(value);
    const auto token = bearer.find(value);
    if (token && token->size() >= 16 && token->size() <= 512) {
        expect(found.kind == credential_kind::bearer);
        expect(found.token == *token && found.token.data() == token->data());
    } else {
        expect(found.kind == (scheme.matches(value) ? credential_kind::malformed : credential_kind::none));
        expect(found.token.empty());
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
        try_authorization(std::string{"Bearer "}.append(token->text()));
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

    try_authorization(value);
    try_token(value, prefix);
    try_generating(prefix, value);
    try_digest(value, prefix);
    return 0;
}
