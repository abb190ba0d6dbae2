#include "pat_cmocka.h"

#include "core/pat_token.h"

#include <algorithm>
#include <array>
#include <optional>

// Tokens that are whole strings below were made with Python's zlib.crc32 and a base62 of its own:
//     crc = zlib.crc32((prefix + body).encode())
//     digits = [alphabet[crc // 62**i % 62] for i in (5, 4, 3, 2, 1, 0)]

namespace {

using namespace pat;
using namespace pat::test;
using namespace std::string_view_literals;

constexpr std::string_view alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr std::string_view golden = "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf2mQI9v";

constexpr bool is_alphanumeric(int byte) noexcept
{
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
}

constexpr bool is_one_of(int byte, std::string_view set) noexcept
{
    return set.find(static_cast<char>(byte)) != std::string_view::npos;
}

constexpr bool is_b64token_character(int byte) noexcept
{
    return is_alphanumeric(byte) || is_one_of(byte, "-._~+/");
}

/// RFC 9110, section 5.6.2.
constexpr bool is_tchar(int byte) noexcept
{
    return is_alphanumeric(byte) || is_one_of(byte, "!#$%&'*+-.^_`|~");
}

/// A text of any length up to 600.
std::string_view repeated(char c, std::size_t length) noexcept
{
    static std::array<char, 600> text;
    text.fill(c);
    return {text.data(), length};
}

void a_token_is_a_b64token_of_16_to_512_characters(void **)
{
    struct row {
        const char *label;
        std::string_view text;
        bool want;
    };
    static constexpr row rows[] = {
        {"empty", "", false},
        {"one character", "a", false},
        {"15 characters", "abcdefghijklmno", false},
        {"16 characters", "abcdefghijklmnop", true},
        {"17 characters", "abcdefghijklmnopq", true},
        {"every kind of character", "azAZ09-._~+/azAZ09", true},
        {"only punctuation", "-._~+/-._~+/-._~", true},
        {"the form we issue", golden, true},
        {"one = at the end", "abcdefghijklmno=", true},
        {"two = at the end", "abcdefghijklmn==", true},
        {"one character, then only =", "a===============", true},
        {"only =", "================", false},
        {"= in front", "=bcdefghijklmnop", false},
        {"= in the middle", "abcdefg=ijklmnop", false},
        {"= before the last character", "abcdefghijklmn=p", false},
        {"= in the middle and at the end", "abcdefg=ijklmn==", false},
        {"15 characters without the =", "abcdefghijklm==", false},
        {"space in front", " abcdefghijklmnop", false},
        {"space at the end", "abcdefghijklmnop ", false},
        {"space before the =", "abcdefghijklmno =", false},
        {"line end", "abcdefghijklmnop\n", false},
        {"terminating zero", "abcdefghijklmnop\0"sv, false},
        {"comma", "abcdefgh,ijklmnop", false},
        {"quotes", "\"abcdefghijklmnop\"", false},
    };

    for (const row &row : rows) {
        assert_number_equal(row.label, is_token(row.text), row.want);
    }

    for (std::size_t length = 0; length <= 600; length++) {
        assert_number_equal(label_at("length", length), is_token(repeated('a', length)), length >= 16 && length <= 512);
        assert_number_equal(label_at("only =, length", length), is_token(repeated('=', length)), false);
    }
}

void a_token_takes_the_characters_of_its_grammar_and_no_others(void **)
{
    std::array<char, 16> text;

    for (std::size_t position = 0; position < text.size(); position++) {
        for (int byte = 0; byte < 256; byte++) {
            text.fill('a');
            text[position] = static_cast<char>(byte);

            const bool want = is_b64token_character(byte) || (byte == '=' && position == text.size() - 1);
            if (is_token({text.data(), text.size()}) != want) {
                fail_msg("byte 0x%02x at %zu should be %s", static_cast<unsigned>(byte), position,
                         want ? "taken" : "refused");
            }
        }
    }
}

void a_prefix_is_1_to_32_letters_digits_and_a_few_marks(void **)
{
    for (std::size_t length = 0; length <= 600; length++) {
        assert_number_equal(label_at("length", length), is_prefix(repeated('a', length)), length >= 1 && length <= 32);
    }

    for (int byte = 0; byte < 256; byte++) {
        const char text[] = {'a', static_cast<char>(byte), 'z'};
        if (is_prefix({text, 3}) != (is_alphanumeric(byte) || is_one_of(byte, "_-."))) {
            fail_msg("byte 0x%02x is judged wrongly", static_cast<unsigned>(byte));
        }
    }

    assert_view_equal("default", default_prefix, "ropat_");
    assert_true(is_prefix(default_prefix));
}

void the_issued_form_has_the_prefix_and_a_right_checksum(void **)
{
    struct row {
        const char *label;
        std::string_view text;
        std::string_view prefix;
        bool want;
    };
    static constexpr row rows[] = {
        {"right", golden, "ropat_", true},
        {"checksum with zeros in front", "ropat_zzzzzzzzzzzzzzzzzzzzzzzz00012902000Yi5", "ropat_", true},
        {"prefix of one character", "a7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf0CLyd0", "a", true},
        {"prefix of 32 characters", "a.b-c_D01234567890123456789012347Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf2GmQ0r",
         "a.b-c_D0123456789012345678901234", true},

        {"another prefix in the token", "gopat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf4TQLdL", "ropat_", false},
        {"prefix in upper case", "ROPAT_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf0rCWal", "ropat_", false},
        {"no prefix in the token", "7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf4DTyxa", "ropat_", false},
        {"another prefix is asked for", golden, "gopat_", false},
        {"a shorter prefix is asked for", golden, "ropat", false},
        {"a longer prefix is asked for", golden, "ropat_7", false},
        {"checksum without the prefix", "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf4DTyxa", "ropat_", false},

        {"31 random characters, checksum right", "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoG02FWfr", "ropat_", false},
        {"33 random characters, checksum right", "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf02j9ylY", "ropat_", false},
        {"- in the body, checksum right", "ropat_7Kq2ZC0mS3wB1xYt-dJ8uLhPnRa5EoGf0Ks0yZ", "ropat_", false},
        {"_ in the body, checksum right", "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoG_3g2yUp", "ropat_", false},
        {"space in the body, checksum right", "ropat_ Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf0uqEJn", "ropat_", false},

        {"checksum backwards", "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGfv9IQm2", "ropat_", false},
        {"checksum of zeros", "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf000000", "ropat_", false},
        {"checksum in the other case", "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf2Mqi9V", "ropat_", false},
        {"empty", "", "ropat_", false},
        {"only the prefix", "ropat_", "ropat_", false},
    };

    for (const row &row : rows) {
        assert_number_equal(row.label, is_issued_form(row.text, row.prefix), row.want);
    }
}

void no_change_of_one_character_keeps_the_issued_form(void **)
{
    std::array<char, golden.size()> text;

    for (std::size_t position = 0; position < golden.size(); position++) {
        for (int byte = 0; byte < 256; byte++) {
            golden.copy(text.data(), golden.size());
            text[position] = static_cast<char>(byte);

            const bool same = text[position] == golden[position];
            if (is_issued_form({text.data(), text.size()}, default_prefix) != same) {
                fail_msg("byte 0x%02x at %zu should be %s", static_cast<unsigned>(byte), position,
                         same ? "taken" : "refused");
            }
        }
    }
}

void no_swap_of_two_neighbours_keeps_the_issued_form(void **)
{
    std::array<char, golden.size()> text;

    for (std::size_t position = 0; position + 1 < golden.size(); position++) {
        golden.copy(text.data(), golden.size());
        std::swap(text[position], text[position + 1]);

        if (text[position] != golden[position] && is_issued_form({text.data(), text.size()}, default_prefix)) {
            fail_msg("the swap at %zu is taken", position);
        }
    }
}

void an_issued_token_of_another_length_is_refused(void **)
{
    std::array<char, golden.size() + 1> text;
    golden.copy(text.data(), golden.size());

    for (std::size_t length = 0; length < golden.size(); length++) {
        assert_number_equal(label_at("cut to", length), is_issued_form({text.data(), length}, default_prefix), false);
    }
    for (int byte = 0; byte < 256; byte++) {
        text.back() = static_cast<char>(byte);
        assert_number_equal(label_at("one more byte,", static_cast<std::size_t>(byte)),
                            is_issued_form({text.data(), text.size()}, default_prefix), false);
    }
}

/// A source of randomness that isn't one: counts up from `next`. Ends after a thousand calls whatever happens.
struct counter {
    unsigned next = 0;
    int calls = 0;
    int calls_to_fail = 1000;
    std::size_t good_in_a_call = 512;  ///< how many bytes of a call count up; those behind are 0xff
};

bool counting(void *context, std::span<std::byte> out) noexcept
{
    auto &state = *static_cast<counter *>(context);
    if (++state.calls >= state.calls_to_fail) {
        return false;
    }
    for (std::size_t i = 0; i < out.size(); i++) {
        out[i] = i < state.good_in_a_call ? static_cast<std::byte>(state.next++) : std::byte{0xff};
    }
    return true;
}

/// Gives the same byte again and again.
struct constant {
    std::byte value;
    int calls = 0;
};

bool repeating(void *context, std::span<std::byte> out) noexcept
{
    auto &state = *static_cast<constant *>(context);
    std::ranges::fill(out, state.value);
    return ++state.calls < 1000;
}

/// Fills `out` like a good source and says that it failed.
bool failing(void *context, std::span<std::byte> out) noexcept
{
    static_cast<void>(counting(context, out));
    return false;
}

/// xorshift64 of Marsaglia, upper byte.
bool pseudorandom(void *context, std::span<std::byte> out) noexcept
{
    auto &state = *static_cast<std::uint64_t *>(context);
    for (std::byte &byte : out) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        byte = static_cast<std::byte>(state >> 56);
    }
    return true;
}

void a_generated_token_follows_from_the_random_bytes(void **)
{
    struct row {
        const char *label;
        counter source;
        std::string_view want;
    };
    static constexpr row rows[] = {
        {"from 0", {.next = 0}, "ropat_0123456789ABCDEFGHIJKLMNOPQRSTUV0ponFK"},
        {"from 64", {.next = 64}, "ropat_23456789ABCDEFGHIJKLMNOPQRSTUVWX40atwI"},
        {"248 to 255 are skipped", {.next = 240}, "ropat_stuvwxyz0123456789ABCDEFGHIJKLMN2dKoPn"},
    };

    for (const row &row : rows) {
        counter source = row.source;
        const auto token = generate_token("ropat_", counting, &source);
        assert_row(row.label, token);
        assert_view_equal(row.label, token->text(), row.want);
    }
}

void a_generated_token_is_continued_with_more_bytes_where_too_many_were_skipped(void **)
{
    counter source{.good_in_a_call = 16};
    const auto token = generate_token("ropat_", counting, &source);

    assert_true(token.has_value());
    assert_view_equal("two rounds", token->text(), "ropat_0123456789ABCDEFGHIJKLMNOPQRSTUV0ponFK");
    assert_int_equal(source.calls, 2);
}

void each_byte_below_248_gives_its_character_and_each_other_none(void **)
{
    std::array<int, alphabet.size()> times{};

    for (int byte = 0; byte < 256; byte++) {
        constant source{static_cast<std::byte>(byte)};
        const auto token = generate_token("ropat_", repeating, &source);

        const char *label = label_at("byte", static_cast<std::size_t>(byte));
        assert_number_equal(label, token.has_value(), byte < 248);
        if (!token) {
            continue;
        }

        const char c = token->characters[6];
        assert_row(label, is_alphanumeric(c));
        assert_number_equal(label, c, alphabet[static_cast<std::size_t>(byte) % 62]);
        assert_view_equal(label, token->text().substr(6, 32), repeated(c, 32));
        times[alphabet.find(c)]++;
    }

    for (int count : times) {
        assert_number_equal("bytes that give a character", count, 4);
    }
}

void every_character_of_a_generated_token_is_equally_likely(void **)
{
    constexpr int tokens = 20000;
    constexpr double expected = tokens * 32.0 / 62.0;

    std::array<int, alphabet.size()> times{};
    std::uint64_t state = 0x9e3779b97f4a7c15;

    for (int i = 0; i < tokens; i++) {
        const auto token = generate_token("ropat_", pseudorandom, &state);
        assert_true(token.has_value());
        for (char c : token->text().substr(6, 32)) {
            times[alphabet.find(c)]++;
        }
    }

    // The standard deviation is about 101; the first eight characters would get 25 % more if nothing were skipped.
    for (std::size_t i = 0; i < times.size(); i++) {
        if (times[i] < expected - 600 || times[i] > expected + 600) {
            fail_msg("'%c' came %d times, about %.0f were expected", alphabet[i], times[i], expected);
        }
    }
}

void no_token_is_generated_when_the_random_source_fails(void **)
{
    counter at_once{};
    assert_false(generate_token("ropat_", failing, &at_once).has_value());

    counter in_the_second_call{.calls_to_fail = 2, .good_in_a_call = 31};
    assert_false(generate_token("ropat_", counting, &in_the_second_call).has_value());
    assert_int_equal(in_the_second_call.calls, 2);
}

void a_source_of_which_no_byte_counts_comes_to_an_end(void **)
{
    constant source{std::byte{0xff}};
    assert_false(generate_token("ropat_", repeating, &source).has_value());
    assert_int_equal(source.calls, 4);

    counter one_byte_a_call{.good_in_a_call = 1};
    assert_false(generate_token("ropat_", counting, &one_byte_a_call).has_value());
}

void a_generated_token_has_the_form_we_issue_for_every_length_of_prefix(void **)
{
    std::uint64_t state = 1;

    for (std::size_t length = 1; length <= max_prefix_length; length++) {
        const std::string_view prefix = repeated('p', length);
        const auto token = generate_token(prefix, pseudorandom, &state);

        assert_true(token.has_value());
        const char *label = label_at("prefix of length", length);
        assert_number_equal(label, token->text().size(), length + 32 + 6);
        assert_row(label, token->text().starts_with(prefix));
        assert_row(label, is_issued_form(token->text(), prefix));
        assert_row(label, is_token(token->text()));
    }
}

void no_token_is_generated_for_what_is_not_a_prefix(void **)
{
    struct row {
        const char *label;
        std::string_view prefix;
    };
    static constexpr row rows[] = {
        {"empty", ""},
        {"33 characters", "a.b-c_D01234567890123456789012345"},
        {"space", "ro pat_"},
        {"slash", "ropat/"},
        {"=", "ropat="},
        {"terminating zero", "ropat_\0"sv},
        {"non-ASCII", "rop\xc3\xa4t_"},
    };

    for (const row &row : rows) {
        counter source{};
        assert_row(row.label, !generate_token(row.prefix, counting, &source));
    }
}

#define TOKEN "abcdefghijklmnop"

void an_authorization_value_holds_a_bearer_token_or_not(void **)
{
    constexpr credential_kind none = credential_kind::none;
    constexpr credential_kind malformed = credential_kind::malformed;
    constexpr credential_kind bearer = credential_kind::bearer;

    struct row {
        const char *label;
        std::string_view value;
        credential_kind kind;
        std::string_view token;
    };
    static constexpr row rows[] = {
        {"plain", "Bearer " TOKEN, bearer, TOKEN},
        {"lower case", "bearer " TOKEN, bearer, TOKEN},
        {"upper case", "BEARER " TOKEN, bearer, TOKEN},
        {"mixed case", "bEaReR " TOKEN, bearer, TOKEN},
        {"two spaces", "Bearer  " TOKEN, bearer, TOKEN},
        {"many spaces", "Bearer          " TOKEN, bearer, TOKEN},
        {"space in front", " Bearer " TOKEN, bearer, TOKEN},
        {"spaces in front", "    Bearer " TOKEN, bearer, TOKEN},
        {"tab in front", "\tBearer " TOKEN, bearer, TOKEN},
        {"space at the end", "Bearer " TOKEN " ", bearer, TOKEN},
        {"spaces at the end", "Bearer " TOKEN "     ", bearer, TOKEN},
        {"tab at the end", "Bearer " TOKEN "\t", bearer, TOKEN},
        {"blanks all around", " \t Bearer  " TOKEN " \t ", bearer, TOKEN},
        {"= at the end", "Bearer " TOKEN "==", bearer, TOKEN "=="},
        {"= at the end, then a space", "Bearer " TOKEN "= ", bearer, TOKEN "="},
        {"every kind of character", "Bearer azAZ09-._~+/azAZ09", bearer, "azAZ09-._~+/azAZ09"},
        {"the form we issue", "Bearer ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf2mQI9v", bearer, golden},
        {"a token that says Bearer", "Bearer BearerBearerBearer", bearer, "BearerBearerBearer"},
        {"a token like a JWT", "Bearer eyJhbGciOi.eyJzdWIi.c2ln-_", bearer, "eyJhbGciOi.eyJzdWIi.c2ln-_"},

        {"empty", "", none, ""},
        {"one space", " ", none, ""},
        {"blanks", " \t \t", none, ""},
        {"terminating zero", "\0"sv, none, ""},
        {"another scheme", "Basic dXNlcjpwYXNzd29yZA==", none, ""},
        {"another scheme alone", "Basic", none, ""},
        {"another scheme, then Bearer", "Basic Bearer " TOKEN, none, ""},
        {"two credentials, Basic first", "Basic dXNlcjpwYXNz, Bearer " TOKEN, none, ""},
        {"Digest", "Digest username=\"a\", realm=\"b\"", none, ""},
        {"Negotiate", "Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa", none, ""},
        {"token scheme", "token " TOKEN, none, ""},
        {"no scheme", TOKEN, none, ""},
        {"space and no scheme", " " TOKEN, none, ""},
        {"scheme cut off", "Beare " TOKEN, none, ""},
        {"scheme without its first letter", "earer " TOKEN, none, ""},
        {"scheme with a letter more", "Bearers " TOKEN, none, ""},
        {"scheme with a letter in front", "XBearer " TOKEN, none, ""},
        {"scheme in quotes", "\"Bearer\" " TOKEN, none, ""},
        {"one quote in front", "\"Bearer " TOKEN "\"", none, ""},
        {"scheme with a mark", "Bearer! " TOKEN, none, ""},
        {"scheme with a hyphen", "Bearer-" TOKEN, none, ""},
        {"scheme with an underscore", "Bearer_ " TOKEN, none, ""},
        {"scheme twice, glued", "BearerBearer " TOKEN, none, ""},
        {"token glued to the scheme", "Bearer" TOKEN, none, ""},
        {"space in the scheme", "Bea rer " TOKEN, none, ""},
        {"tab in the scheme", "Bea\trer " TOKEN, none, ""},
        {"comma in front", ", Bearer " TOKEN, none, ""},
        {"comma and no scheme", "," TOKEN, none, ""},
        {"colon in front", ":Bearer " TOKEN, none, ""},
        {"header name too", "Authorization: Bearer " TOKEN, none, ""},
        {"zero in front", "\0Bearer " TOKEN ""sv, none, ""},
        {"zero in the scheme", "Bea\0rer " TOKEN ""sv, none, ""},
        {"line end in front", "\nBearer " TOKEN, none, ""},
        {"carriage return in front", "\rBearer " TOKEN, none, ""},
        {"vertical tab in front", "\vBearer " TOKEN, none, ""},
        {"byte order mark in front",
         "\xef\xbb\xbf"
         "Bearer " TOKEN,
         none, ""},
        {"non-ASCII scheme",
         "B\xc3\xa9"
         "arer " TOKEN,
         none, ""},
        {"no-break space in front",
         "\xa0"
         "Bearer " TOKEN,
         none, ""},
        {"upper bits set",
         "\xc2"
         "earer " TOKEN,
         none, ""},
        {"cyrillic scheme",
         "\xd0\x92"
         "earer " TOKEN,
         none, ""},

        {"scheme alone", "Bearer", malformed, ""},
        {"scheme and a space", "Bearer ", malformed, ""},
        {"scheme and spaces", "  bearer   ", malformed, ""},
        {"scheme and a tab", "Bearer\t", malformed, ""},
        {"tab as separator", "Bearer\t" TOKEN, malformed, ""},
        {"space and tab as separator", "Bearer \t" TOKEN, malformed, ""},
        {"tab and space as separator", "Bearer\t " TOKEN, malformed, ""},
        {"line end as separator", "Bearer\n" TOKEN, malformed, ""},
        {"line end after the separator", "Bearer \n" TOKEN, malformed, ""},
        {"folded line", "Bearer \r\n " TOKEN, malformed, ""},
        {"no-break space as separator", "Bearer\xa0" TOKEN, malformed, ""},
        {"zero as separator", "Bearer\0" TOKEN ""sv, malformed, ""},
        {"comma as separator", "Bearer," TOKEN, malformed, ""},
        {"colon as separator", "Bearer:" TOKEN, malformed, ""},
        {"colon and space as separator", "Bearer: " TOKEN, malformed, ""},
        {"= as separator", "Bearer=" TOKEN, malformed, ""},
        {"slash as separator", "Bearer/" TOKEN, malformed, ""},
        {"quote as separator", "Bearer\"" TOKEN "\"", malformed, ""},
        {"= after the separator", "Bearer =" TOKEN, malformed, ""},
        {"token in quotes", "Bearer \"" TOKEN "\"", malformed, ""},
        {"token in single quotes", "Bearer '" TOKEN "'", malformed, ""},
        {"token in angle brackets", "Bearer <" TOKEN ">", malformed, ""},
        {"token as a parameter", "Bearer token=\"" TOKEN "\"", malformed, ""},
        {"token as a parameter without quotes", "Bearer token=" TOKEN, malformed, ""},
        {"parameter after the token", "Bearer " TOKEN ", realm=\"x\"", malformed, ""},
        {"comma after the token", "Bearer " TOKEN ",", malformed, ""},
        {"semicolon after the token", "Bearer " TOKEN ";", malformed, ""},
        {"two credentials", "Bearer " TOKEN ", Bearer " TOKEN, malformed, ""},
        {"two credentials, the other is Basic", "Bearer " TOKEN ", Basic dXNlcjpwYXNz", malformed, ""},
        {"two tokens", "Bearer " TOKEN " " TOKEN, malformed, ""},
        {"two tokens and a comma", "Bearer " TOKEN "," TOKEN, malformed, ""},
        {"two tokens and a tab", "Bearer " TOKEN "\t" TOKEN, malformed, ""},
        {"scheme twice", "Bearer Bearer " TOKEN, malformed, ""},
        {"scheme twice and nothing", "Bearer Bearer", malformed, ""},
        {"another scheme after it", "Bearer Basic dXNlcjpwYXNzd29yZA==", malformed, ""},
        {"token of 15 characters", "Bearer abcdefghijklmno", malformed, ""},
        {"token of one character", "Bearer a", malformed, ""},
        {"15 characters and a blank", "Bearer abcdefghijklmno ", malformed, ""},
        {"only =", "Bearer ================", malformed, ""},
        {"= in the middle", "Bearer abcdefg=ijklmnop", malformed, ""},
        {"space in the token", "Bearer abcdefgh ijklmnop", malformed, ""},
        {"zero in the token", "Bearer abcdefgh\0ijklmnop"sv, malformed, ""},
        {"zero at the end", "Bearer " TOKEN "\0"sv, malformed, ""},
        {"zero and more at the end", "Bearer " TOKEN "\0, Bearer x"sv, malformed, ""},
        {"line end at the end", "Bearer " TOKEN "\n", malformed, ""},
        {"carriage return and line end at the end", "Bearer " TOKEN "\r\n", malformed, ""},
        {"form feed at the end", "Bearer " TOKEN "\f", malformed, ""},
        {"header injection", "Bearer " TOKEN "\r\nX-Admin: 1", malformed, ""},
        {"escape in the token", "Bearer abcdefgh\x1b[0mijkl", malformed, ""},
        {"delete in the token", "Bearer abcdefgh\x7fijklmnop", malformed, ""},
        {"non-ASCII in the token", "Bearer abcdefgh\xc3\xa9ijklmnop", malformed, ""},
        {"no-break space at the end", "Bearer " TOKEN "\xc2\xa0", malformed, ""},
        {"percent escape in the token", "Bearer abcdefgh%20ijklmnop", malformed, ""},
        {"backslash in the token", "Bearer abcdefgh\\ijklmnop", malformed, ""},
        {"colon in the token", "Bearer user:abcdefghijklmnop", malformed, ""},
        {"at sign in the token", "Bearer abcdefgh@ijklmnop", malformed, ""},
        {"template that was not filled in", "Bearer ${API_ACCESS_TOKEN}", malformed, ""},
        {"placeholder", "Bearer <your-token-here>", malformed, ""},
    };

    for (const row &row : rows) {
        const credential have = parse_authorization(row.value);
        assert_number_equal(row.label, have.kind, row.kind);
        assert_view_equal(row.label, have.token, row.token);
        if (row.kind == bearer) {
            assert_row(row.label, have.token.data() >= row.value.data()
                                      && have.token.end() <= row.value.data() + row.value.size());
        }
    }
}

void the_length_of_a_bearer_token_is_bounded(void **)
{
    constexpr std::string_view scheme = "Bearer ";
    std::array<char, scheme.size() + 600> value;
    scheme.copy(value.data(), scheme.size());
    std::fill(value.begin() + scheme.size(), value.end(), 'a');

    for (std::size_t length = 0; length <= 600; length++) {
        const credential have = parse_authorization({value.data(), scheme.size() + length});
        const bool want = length >= 16 && length <= 512;

        assert_number_equal(label_at("length", length), have.kind,
                            want ? credential_kind::bearer : credential_kind::malformed);
        assert_number_equal(label_at("length", length), have.token.size(), want ? length : 0);
    }
}

void the_scheme_is_matched_without_regard_to_case_and_to_nothing_else(void **)
{
    constexpr std::string_view lower = "bearer";
    constexpr std::string_view plain = "bearer " TOKEN;
    std::array<char, plain.size()> value;

    for (unsigned cases = 0; cases < 64; cases++) {
        plain.copy(value.data(), plain.size());
        for (std::size_t i = 0; i < lower.size(); i++) {
            if ((cases >> i & 1) != 0) {
                value[i] = static_cast<char>(lower[i] - 'a' + 'A');
            }
        }
        assert_number_equal(label_at("case variant", cases), parse_authorization({value.data(), value.size()}).kind,
                            credential_kind::bearer);
    }

    for (std::size_t position = 0; position < lower.size(); position++) {
        for (int byte = 0; byte < 256; byte++) {
            plain.copy(value.data(), plain.size());
            value[position] = static_cast<char>(byte);

            const bool same = byte == lower[position] || byte == lower[position] - 'a' + 'A';
            if ((parse_authorization({value.data(), value.size()}).kind == credential_kind::bearer) != same) {
                fail_msg("byte 0x%02x at %zu is judged wrongly", static_cast<unsigned>(byte), position);
            }
        }
    }
}

void nothing_is_read_behind_the_end_of_a_value(void **)
{
    constexpr std::string_view whole = "Bearer " TOKEN;
    for (std::size_t length = 0; length < whole.size(); length++) {
        assert_number_equal(label_at("length", length), parse_authorization(whole.substr(0, length)).kind,
                            length < 6 ? credential_kind::none : credential_kind::malformed);
    }
    constexpr std::string_view longer = "Bearers";
    assert_number_equal("s behind it", parse_authorization(longer.substr(0, 6)).kind, credential_kind::malformed);
    assert_number_equal("blanks behind it", parse_authorization(std::string_view{"   Bearer"}.substr(0, 2)).kind,
                        credential_kind::none);
}

void only_a_space_ends_the_scheme(void **)
{
    constexpr std::string_view plain = "Bearer " TOKEN;
    std::array<char, plain.size()> value;

    for (int byte = 0; byte < 256; byte++) {
        plain.copy(value.data(), plain.size());
        value[6] = static_cast<char>(byte);

        const credential_kind want = byte == ' '      ? credential_kind::bearer
                                     : is_tchar(byte) ? credential_kind::none
                                                      : credential_kind::malformed;
        if (parse_authorization({value.data(), value.size()}).kind != want) {
            fail_msg("byte 0x%02x is judged wrongly", static_cast<unsigned>(byte));
        }
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_a_b64token_of_16_to_512_characters),
        cmocka_unit_test(a_token_takes_the_characters_of_its_grammar_and_no_others),
        cmocka_unit_test(a_prefix_is_1_to_32_letters_digits_and_a_few_marks),
        cmocka_unit_test(the_issued_form_has_the_prefix_and_a_right_checksum),
        cmocka_unit_test(no_change_of_one_character_keeps_the_issued_form),
        cmocka_unit_test(no_swap_of_two_neighbours_keeps_the_issued_form),
        cmocka_unit_test(an_issued_token_of_another_length_is_refused),
        cmocka_unit_test(a_generated_token_follows_from_the_random_bytes),
        cmocka_unit_test(a_generated_token_is_continued_with_more_bytes_where_too_many_were_skipped),
        cmocka_unit_test(each_byte_below_248_gives_its_character_and_each_other_none),
        cmocka_unit_test(every_character_of_a_generated_token_is_equally_likely),
        cmocka_unit_test(no_token_is_generated_when_the_random_source_fails),
        cmocka_unit_test(a_source_of_which_no_byte_counts_comes_to_an_end),
        cmocka_unit_test(a_generated_token_has_the_form_we_issue_for_every_length_of_prefix),
        cmocka_unit_test(no_token_is_generated_for_what_is_not_a_prefix),
        cmocka_unit_test(an_authorization_value_holds_a_bearer_token_or_not),
        cmocka_unit_test(the_length_of_a_bearer_token_is_bounded),
        cmocka_unit_test(the_scheme_is_matched_without_regard_to_case_and_to_nothing_else),
        cmocka_unit_test(nothing_is_read_behind_the_end_of_a_value),
        cmocka_unit_test(only_a_space_ends_the_scheme),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
