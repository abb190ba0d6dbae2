#pragma once

#include "core/pat_bytes.h"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>

/// What fuzz targets share: a check that ends the run with a finding, and a reader of the input.
namespace pat::fuzz {

[[noreturn]] inline void fail(const char *condition, const char *file, int line) noexcept
{
    std::fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    std::abort();
}

#define expect(...) ((__VA_ARGS__) ? void() : pat::fuzz::fail(#__VA_ARGS__, __FILE__, __LINE__))

/// Takes values off the front of an input. Zeros follow its end.
class input {
public:
    input(const std::uint8_t *data, std::size_t size) noexcept : rest_{reinterpret_cast<const char *>(data), size} {}

    template <std::integral Number>
    Number number() noexcept
    {
        Number result{};
        const std::size_t size = std::min(sizeof result, rest_.size());
        std::copy_n(rest_.begin(), size, reinterpret_cast<char *>(&result));
        rest_.remove_prefix(size);
        return result;
    }

    std::uint8_t byte() noexcept { return number<std::uint8_t>(); }
    bool truth() noexcept { return (byte() & 1) != 0; }

    /// A number from 0 to `most`.
    unsigned up_to(unsigned most) noexcept { return number<std::uint16_t>() % (most + 1); }

    template <typename T, std::size_t Count>
    const T &one_of(const T (&choices)[Count]) noexcept
    {
        return choices[byte() % Count];
    }

    std::string_view text(std::size_t length) noexcept
    {
        length = std::min(length, rest_.size());
        const std::string_view result = head(rest_, length);
        rest_ = tail(rest_, length);
        return result;
    }

    std::span<const std::byte> bytes(std::size_t length) noexcept { return bytes_of(text(length)); }

    /// What comes before `end`, which is dropped, or all that is left.
    std::string_view until(char end) noexcept
    {
        const std::size_t length = std::min(rest_.find(end), rest_.size());
        const std::string_view result = text(length);
        text(1);
        return result;
    }

    std::string_view rest() noexcept { return text(rest_.size()); }

    [[nodiscard]] bool has_ended() const noexcept { return rest_.empty(); }

private:
    std::string_view rest_;
};

}  // namespace pat::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);
