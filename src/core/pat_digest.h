#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include <openssl/sha.h>

/// The key of a record: a digest of the token, never the token itself.
namespace pat {

inline constexpr std::size_t digest_length = 32;

using token_digest = std::array<std::byte, digest_length>;

/// How a token becomes a digest. Stored as a byte, hence the values.
enum class digest_scheme : std::uint8_t {
    sha256 = 1,       ///< SHA-256(token), FIPS 180-4
    hmac_sha256 = 2,  ///< HMAC-SHA-256(pepper, token), RFC 2104
};

/// Distinguishes peppers without revealing anything about them: the first 8 bytes of SHA-256 over the label
/// "nginx-auth-pat pepper" and the pepper. All zero for `digest_scheme::sha256`, which has no key.
using key_id = std::array<std::byte, 8>;

inline constexpr std::size_t min_pepper_length = 32;
inline constexpr std::size_t max_pepper_length = 64;

/// A pepper, as read from its file.
struct pepper {
    std::array<std::byte, max_pepper_length> bytes;
    std::size_t length;
};

/// Reads a pepper: 64 to 128 hexadecimal digits, optionally followed by white space, or else 32 to 64 bytes, taken as
/// they are. Returns nothing if it is neither. Contents of only hexadecimal digits and white space are never taken as
/// bytes: they are a mistake that would be noticed too late. The caller wipes both the contents and the result.
[[nodiscard]] std::optional<pepper> parse_pepper(std::string_view contents) noexcept;

/// Makes digests of one scheme. Hashing fetches no algorithm and allocates nothing: the states after the key pads are
/// computed once, and a digest starts from copies of them.
class token_hasher {
public:
    token_hasher() noexcept;
    explicit token_hasher(const pepper &key) noexcept;

    [[nodiscard]] token_digest operator()(std::string_view token) const noexcept;

    [[nodiscard]] digest_scheme scheme() const noexcept { return scheme_; }
    [[nodiscard]] const key_id &key() const noexcept { return key_; }

    /// Overwrites what was derived from the pepper. Only destruction or assignment may follow.
    void wipe() noexcept;

private:
    SHA256_CTX inner_;  ///< the state to start from: after the inner pad, or the initial one
    SHA256_CTX outer_;  ///< after the outer pad; unused for plain SHA-256
    key_id key_;
    digest_scheme scheme_;
};

}  // namespace pat
