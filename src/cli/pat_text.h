#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/// Text from a store or the command line, on its way to people.
namespace pat::cli {

inline constexpr char32_t replacement_character = 0xfffd;

/// Takes the first character off `text`, which is not empty; U+FFFD stands for a byte that is not UTF-8.
[[nodiscard]] char32_t take_character(std::string_view &text);

/// Appends a character in UTF-8.
void append_character(char32_t character, std::string &out);

/// `text` without characters that a terminal would act on: control characters, including C1, and those that change the
/// direction of writing.
[[nodiscard]] std::string printable(std::string_view text);

/// `text` in quotes, for a message about it, or "the value" if it may be a token that is here by mistake.
[[nodiscard]] std::string quote_value(std::string_view text);

/// `text` without spaces, tabs and line ends at its ends, which are the ones that pat.before_token() takes off a name.
[[nodiscard]] std::string_view trim_blanks(std::string_view text) noexcept;

/// Columns that a printable text takes on a terminal.
[[nodiscard]] std::size_t columns_of(std::string_view text);

}  // namespace pat::cli
