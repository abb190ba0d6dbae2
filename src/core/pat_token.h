#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

/// Tokens: parsing them from requests, recognising our form, generating them.
///
/// The form we issue, 44 characters with the default prefix and 190 bits of entropy:
///
///     ropat_  7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf  0Zk3Qa
///     prefix  32 characters of base62           CRC-32 of all before it, base62, most significant first
///
/// The checksum lets a typo or a guess be refused without a lookup, and lets a secret scanner recognise a leaked token.
namespace pat {

inline constexpr std::string_view default_prefix = "ropat_";
inline constexpr std::size_t max_prefix_length = 32;
inline constexpr std::size_t random_length = 32;
inline constexpr std::size_t checksum_length = 6;

/// The store takes any b64token of these lengths: a platform may have its own token format.
inline constexpr std::size_t min_token_length = 16;
inline constexpr std::size_t max_token_length = 512;

/// Whether `text` is a `b64token` (RFC 6750, section 2.1) of 16 to 512 characters.
[[nodiscard]] bool is_token(std::string_view text) noexcept;

/// Whether `text` can be a prefix: 1 to 32 letters, digits, `_`, `-` and `.`.
[[nodiscard]] bool is_prefix(std::string_view text) noexcept;

/// Whether `text` has the form we issue, with this prefix and a valid checksum.
[[nodiscard]] bool is_issued_form(std::string_view text, std::string_view prefix) noexcept;

enum class credential_kind : unsigned char {
    none,       ///< nothing, or nothing that may hold a token
    malformed,  ///< what may hold a token does not hold exactly one
    token,
};

struct credential {
    credential_kind kind;
    std::string_view token;  ///< part of the value that was parsed, or of the buffer; empty unless `kind` is `token`
};

/// The schemes of the Authorization header that may hold a token.
struct credential_schemes {
    bool bearer;            ///< RFC 6750
    bool token;             ///< as GitHub and Django REST framework have it: like Bearer, by another name
    bool basic;             ///< RFC 7617: the password is the token
    std::string_view user;  ///< of Basic; another one is of no concern; empty: any

    [[nodiscard]] constexpr bool any() const noexcept { return bearer || token || basic; }
};

/// Memory for decoded Basic credentials, which is wiped at its end.
class basic_buffer {
public:
    basic_buffer() noexcept = default;
    basic_buffer(const basic_buffer &) = delete;
    basic_buffer &operator=(const basic_buffer &) = delete;
    ~basic_buffer() noexcept
    {
        if (length_ != 0) {
            wipe();
        }
    }

    /// Decodes base64 (RFC 4648, section 4) in its only spelling, with padding. Returns nothing if the text is another
    /// one, or is too long. To be called once.
    [[nodiscard]] std::optional<std::string_view> decode(std::string_view text) noexcept;

private:
    void wipe() noexcept;

    std::size_t length_ = 0;
    std::array<char, 1023> bytes_;  ///< the longest token, a colon, and room for a user name
};

/// Parses the value of one Authorization header: `credentials` of RFC 9110, section 11.4, with one of these schemes.
/// Matches the scheme case-insensitively, takes one or more spaces after it, and ignores blanks around the value.
[[nodiscard]] credential parse_authorization(std::string_view value, const credential_schemes &schemes,
                                             basic_buffer &buffer) noexcept;

/// Parses the value of a header that holds a token alone. Ignores blanks around it.
[[nodiscard]] credential parse_field(std::string_view value) noexcept;

/// Takes a value for a token as it is; an empty one for nothing.
[[nodiscard]] credential parse_value(std::string_view value) noexcept;

/// Fills `out` with random bytes fit for keys; false on failure.
using random_source = bool (*)(void *context, std::span<std::byte> out) noexcept;

struct issued_token {
    std::array<char, max_prefix_length + random_length + checksum_length> characters;
    std::size_t length;

    [[nodiscard]] std::string_view text() const noexcept { return {characters.data(), length}; }
};

/// Generates a token of the form we issue. Returns nothing if the prefix is not valid, if the random source fails, or
/// if rejection sampling refuses so many bytes that it cannot be random. The caller wipes the result after use.
[[nodiscard]] std::optional<issued_token> generate_token(std::string_view prefix, random_source random,
                                                         void *context) noexcept;

}  // namespace pat
