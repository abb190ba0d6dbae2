/// Text on its way to terminals and into JSON. Input: bytes.

#include "cli/pat_draft.h"
#include "cli/pat_failure.h"
#include "cli/pat_json.h"
#include "cli/pat_text.h"
#include "pat_fuzz.h"
#include "pat_json_line.h"

#include <string>

using namespace pat;

namespace {

bool is_utf8(std::string_view text)
{
    try {
        cli::require_utf8(text);
        return true;
    } catch (const cli::bad_value &) {
        return false;
    }
}

/// Taking all characters off and putting them together again leaves UTF-8 as it is, and makes UTF-8 of all else.
void try_characters(std::string_view text)
{
    std::string again;
    bool is_replaced = false;
    for (std::string_view rest = text; !rest.empty();) {
        const char first = rest.front();
        const std::size_t before = rest.size();
        const char32_t character = cli::take_character(rest);
        expect(rest.size() < before);
        is_replaced = is_replaced || (character == cli::replacement_character && first != '\xef');
        cli::append_character(character, again);
    }
    expect(is_utf8(again));
    expect(is_utf8(text) == (again == text));
    expect(!is_replaced || !is_utf8(text));
}

void try_printable(std::string_view text)
{
    const std::string shown = cli::printable(text);
    expect(is_utf8(shown) && cli::printable(shown) == shown);
    for (const char c : shown) {
        expect(c < 0 || (c >= ' ' && c != '\x7f'));
    }
    for (const std::string_view wrong : {"\xc2\x85", "\xc2\x9b", "\xe2\x80\xae", "\xe2\x81\xa6", "\xd8\x9c"}) {
        expect(shown.find(wrong) == std::string::npos);
    }
    (void) cli::columns_of(shown);

    const std::string_view trimmed = cli::trim_blanks(text);
    expect(trimmed.empty() || (trimmed.front() != ' ' && trimmed.back() != '\n'));
}

void try_json(std::string_view text)
{
    const fuzz::padded_text line{cli::json_object{}.text("text", text).number("n", 7).line()};
    expect(line.text().find('\n') == line.text().size() - 1);
    std::string_view read;
    expect(fuzz::json_parser().parse(line.text()).at_key("text").get(read) == simdjson::SUCCESS);
    expect(!is_utf8(text) || read == text);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    const std::string_view text = fuzz::input{data, size}.rest();
    try_characters(text);
    try_printable(text);
    try_json(text);
    return 0;
}
