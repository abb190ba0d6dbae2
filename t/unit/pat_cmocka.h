#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>  // has a function of the name of cmocka's macro fail()
#include <span>
#include <string_view>

// cmocka.h has no guard for C++, and wants these two in front of it.
extern "C" {
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
}

/// What cmocka lacks for our tests: texts that aren't terminated, bytes, and the label of the row of a table.
///
/// A failed assertion leaves the test by longjmp() and skips destructors, so nothing that has one may be alive then:
/// the locals of a test are integers, views, arrays and structs of those.
namespace pat::test {

/// A label for one round of a loop: "length 15". Good until the next one is made.
inline const char *label_at(const char *what, std::size_t number) noexcept
{
    static char text[80];
    std::snprintf(text, sizeof text, "%s %zu", what, number);
    return text;
}

/// A text in quotes, with what isn't visible ASCII as \xNN.
inline void print_text(std::string_view text) noexcept
{
    print_error("\"");
    for (char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte > 0x7e || c == '"' || c == '\\') {
            print_error("\\x%02x", byte);
        } else {
            print_error("%c", c);
        }
    }
    print_error("\" (%zu bytes)", text.size());
}

inline void print_bytes(std::span<const std::byte> bytes) noexcept
{
    for (std::byte byte : bytes) {
        print_error("%02x", std::to_integer<unsigned>(byte));
    }
    print_error(" (%zu bytes)", bytes.size());
}

inline void check_row(bool holds, const char *condition, const char *label, const char *file, int line)
{
    if (!holds) {
        print_error("[%s] does not hold: %s\n", label, condition);
        _fail(file, line);
    }
}

inline void check_number(const char *label, long long have, long long want, const char *file, int line)
{
    if (have != want) {
        print_error("[%s] have %lld, want %lld\n", label, have, want);
        _fail(file, line);
    }
}

inline void check_view(const char *label, std::string_view have, std::string_view want, const char *file, int line)
{
    if (have != want) {
        print_error("[%s] have ", label);
        print_text(have);
        print_error(", want ");
        print_text(want);
        print_error("\n");
        _fail(file, line);
    }
}

inline void check_bytes(const char *label, std::span<const std::byte> have, std::span<const std::byte> want,
                        const char *file, int line)
{
    std::size_t same = 0;
    while (same < have.size() && same < want.size() && have[same] == want[same]) {
        same++;
    }

    if (have.size() != want.size() || same != have.size()) {
        print_error("[%s] they differ from byte %zu on\nhave ", label, same);
        print_bytes(have);
        print_error("\nwant ");
        print_bytes(want);
        print_error("\n");
        _fail(file, line);
    }
}

constexpr unsigned digit_value(char digit) noexcept
{
    return static_cast<unsigned>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

/// Turns hexadecimal digits (lower case, an even number of them) into bytes of `out`, and returns those.
constexpr std::span<const std::byte> unhex(std::string_view digits, std::span<std::byte> out) noexcept
{
    for (std::size_t i = 0; i < digits.size() / 2; i++) {
        out[i] = static_cast<std::byte>(digit_value(digits[2 * i]) << 4 | digit_value(digits[2 * i + 1]));
    }
    return out.first(digits.size() / 2);
}

}  // namespace pat::test

/// Assertions that name the row of a table (or say in other words what is being looked at).
#define assert_row(label, condition)                                                                                   \
    pat::test::check_row(static_cast<bool>(condition), #condition, label, __FILE__, __LINE__)

/// For integers, characters and enumerators.
#define assert_number_equal(label, have, want)                                                                         \
    pat::test::check_number(label, static_cast<long long>(have), static_cast<long long>(want), __FILE__, __LINE__)

#define assert_view_equal(label, have, want) pat::test::check_view(label, have, want, __FILE__, __LINE__)

#define assert_bytes_equal(label, have, want) pat::test::check_bytes(label, have, want, __FILE__, __LINE__)
