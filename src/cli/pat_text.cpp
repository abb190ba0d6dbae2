#include "cli/pat_text.h"

#include "core/pat_token.h"

#include <algorithm>
#include <cwchar>

#include <fmt/core.h>

namespace pat::cli {

namespace {

bool acts_on_terminals(char32_t character)
{
    return character < 0x20 || (character >= 0x7f && character < 0xa0) || character == 0x061c
           || (character >= 0x200e && character <= 0x200f) || (character >= 0x2028 && character <= 0x202e)
           || (character >= 0x2066 && character <= 0x2069);
}

}  // namespace

char32_t take_character(std::string_view &text)
{
    const auto byte = [&](std::size_t position) { return static_cast<unsigned char>(text[position]); };

    const unsigned char lead = byte(0);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : 4;

    char32_t character = length == 1 ? lead : lead & (0x7fU >> length);
    bool good = (lead < 0x80 || lead >= 0xc2) && lead < 0xf5 && text.size() >= length;
    for (std::size_t i = 1; good && i < length; i++) {
        good = (byte(i) & 0xc0) == 0x80;
        character = character << 6 | (byte(i) & 0x3fU);
    }

    constexpr char32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    good = good && character >= smallest[length] && character <= 0x10ffff && (character < 0xd800 || character > 0xdfff);

    text.remove_prefix(good ? length : 1);
    return good ? character : replacement_character;
}

void append_character(char32_t character, std::string &out)
{
    const auto append = [&](char32_t byte) { out += static_cast<char>(byte); };

    if (character < 0x80) {
        append(character);
    } else if (character < 0x800) {
        append(0xc0 | character >> 6);
        append(0x80 | (character & 0x3f));
    } else if (character < 0x10000) {
        append(0xe0 | character >> 12);
        append(0x80 | (character >> 6 & 0x3f));
        append(0x80 | (character & 0x3f));
    } else {
        append(0xf0 | character >> 18);
        append(0x80 | (character >> 12 & 0x3f));
        append(0x80 | (character >> 6 & 0x3f));
        append(0x80 | (character & 0x3f));
    }
}

std::string printable(std::string_view text)
{
    std::string result;
    while (!text.empty()) {
        const char32_t character = take_character(text);
        append_character(acts_on_terminals(character) ? replacement_character : character, result);
    }
    return result;
}

std::string quote_value(std::string_view text)
{
    return is_token(text) ? "the value" : fmt::format("\"{}\"", text);
}

std::string_view trim_blanks(std::string_view text) noexcept
{
    constexpr std::string_view blanks = " \t\n\v\f\r";

    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    return text.substr(0, text.find_last_not_of(blanks) + 1);
}

std::size_t columns_of(std::string_view text)
{
    std::size_t columns = 0;
    while (!text.empty()) {
        columns += static_cast<std::size_t>(std::max(0, wcwidth(static_cast<wchar_t>(take_character(text)))));
    }
    return columns;
}

}  // namespace pat::cli
