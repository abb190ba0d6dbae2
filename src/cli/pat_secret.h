#pragma once

#include "core/pat_digest.h"

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <openssl/crypto.h>

/// Tokens and peppers: read into memory that is wiped after use.
namespace pat::cli {

/// Characters that are wiped when they go out of scope.
template <std::size_t Size>
class secret {
public:
    secret() = default;
    secret(const secret &) = delete;
    secret &operator=(const secret &) = delete;
    ~secret() { OPENSSL_cleanse(bytes.data(), bytes.size()); }

    [[nodiscard]] std::string_view text() const noexcept { return {bytes.data(), length}; }

    std::array<char, Size> bytes;
    std::size_t length = 0;
};

/// Room for any text that could be meant as a token.
using presented_token = secret<4096>;

/// Reads the one line on standard input, or asks for it if that is a terminal, which does not show what is typed.
/// Throws bad_value if there is none, or more than one.
void read_token(presented_token &out);

/// The hasher that goes with a pepper file, or the plain one if `path` is empty. Wiped when it goes out of scope.
class pepper_hasher {
public:
    explicit pepper_hasher(const std::string &path);
    pepper_hasher(const pepper_hasher &) = delete;
    pepper_hasher &operator=(const pepper_hasher &) = delete;
    ~pepper_hasher() { hasher_.wipe(); }

    [[nodiscard]] const token_hasher &get() const noexcept { return hasher_; }

private:
    token_hasher hasher_;
};

/// Random bytes from the kernel, for generate_token().
bool kernel_random(void *context, std::span<std::byte> out) noexcept;

}  // namespace pat::cli
