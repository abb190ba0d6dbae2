// The SHA256_* functions are deprecated in OpenSSL 3 in favour of EVP, which cannot copy a state without allocating and
// cannot hash without going through a provider. They are what OpenSSL's own provider calls.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "core/pat_digest.h"

#include "core/pat_bytes.h"

#include <algorithm>

#include <openssl/crypto.h>

namespace pat {

namespace {

constexpr std::size_t block_length = SHA256_CBLOCK;

static_assert(SHA256_DIGEST_LENGTH == digest_length);
static_assert(max_pepper_length <= block_length, "a longer key would have to be hashed first (RFC 2104, section 2)");

constexpr std::string_view key_id_label = "nginx-auth-pat pepper";

token_digest finish(SHA256_CTX state, std::span<const std::byte> data) noexcept
{
    token_digest result;
    SHA256_Update(&state, data.data(), data.size());
    SHA256_Final(reinterpret_cast<unsigned char *>(result.data()), &state);
    return result;
}

/// The state after one block of the key, padded with zeros and masked (RFC 2104, section 2).
SHA256_CTX padded(const pepper &key, std::byte mask) noexcept
{
    std::array<std::byte, block_length> block{};
    std::copy_n(key.bytes.begin(), key.length, block.begin());
    for (std::byte &byte : block) {
        byte ^= mask;
    }

    SHA256_CTX state;
    SHA256_Init(&state);
    SHA256_Update(&state, block.data(), block.size());

    OPENSSL_cleanse(block.data(), block.size());
    return state;
}

constexpr int hex_value(char c) noexcept
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

std::optional<pepper> parse_pepper(std::string_view contents) noexcept
{
    constexpr auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
    constexpr auto is_hex = [](char c) { return hex_value(c) >= 0; };

    std::string_view digits = contents;
    while (!digits.empty() && is_space(digits.back())) {
        digits.remove_suffix(1);
    }

    pepper result{};

    if (std::all_of(digits.begin(), digits.end(), [=](char c) { return is_hex(c) || is_space(c); })) {
        if (digits.size() % 2 != 0 || digits.size() < 2 * min_pepper_length || digits.size() > 2 * max_pepper_length
            || !std::all_of(digits.begin(), digits.end(), is_hex)) {
            return std::nullopt;
        }
        result.length = digits.size() / 2;
        for (std::size_t i = 0; i < result.length; i++) {
            result.bytes[i] = static_cast<std::byte>(hex_value(digits[2 * i]) << 4 | hex_value(digits[2 * i + 1]));
        }
        return result;
    }

    if (contents.size() < min_pepper_length || contents.size() > max_pepper_length) {
        return std::nullopt;
    }

    result.length = contents.size();
    std::ranges::copy(bytes_of(contents), result.bytes.begin());
    return result;
}

token_hasher::token_hasher() noexcept : inner_{}, outer_{}, key_{}, scheme_{digest_scheme::sha256}
{
    SHA256_Init(&inner_);
}

token_hasher::token_hasher(const pepper &key) noexcept
    : inner_{padded(key, std::byte{0x36})},
      outer_{padded(key, std::byte{0x5c})},
      key_{},
      scheme_{digest_scheme::hmac_sha256}
{
    SHA256_CTX state;
    SHA256_Init(&state);
    SHA256_Update(&state, key_id_label.data(), key_id_label.size());

    const token_digest id = finish(state, {key.bytes.data(), key.length});
    std::copy_n(id.begin(), key_.size(), key_.begin());
}

token_digest token_hasher::operator()(std::string_view token) const noexcept
{
    const token_digest inner = finish(inner_, bytes_of(token));

    return scheme_ == digest_scheme::sha256 ? inner : finish(outer_, inner);
}

void token_hasher::wipe() noexcept
{
    OPENSSL_cleanse(&inner_, sizeof inner_);
    OPENSSL_cleanse(&outer_, sizeof outer_);
}

}  // namespace pat
