#include "pat_cmocka.h"

#include "core/pat_token.h"

#include <algorithm>
#include <array>
#include <new>
#include <optional>

#include <openssl/evp.h>

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

/// The buffer lasts until the next call.
credential parse(std::string_view value, const credential_schemes &schemes)
{
    static std::optional<basic_buffer> buffer;
    return parse_authorization(value, schemes, buffer.emplace());
}

constexpr credential_schemes bearer_alone{.bearer = true, .token = false, .basic = false, .user = {}};
constexpr credential_schemes token_alone{.bearer = false, .token = true, .basic = false, .user = {}};
constexpr credential_schemes basic_alone{.bearer = false, .token = false, .basic = true, .user = {}};
constexpr credential_schemes basic_of_robot{.bearer = false, .token = false, .basic = true, .user = "robot"};
constexpr credential_schemes all_schemes{.bearer = true, .token = true, .basic = true, .user = {}};

credential parse_bearer(std::string_view value)
{
    return parse(value, bearer_alone);
}

/// "Basic", and a text in base64. Good until the next one is made.
std::string_view basic(std::string_view user_pass)
{
    constexpr std::string_view scheme = "Basic ";
    static std::array<char, 4096> value;
    scheme.copy(value.data(), scheme.size());
    const int length =
        EVP_EncodeBlock(reinterpret_cast<unsigned char *>(value.data() + scheme.size()),
                        reinterpret_cast<const unsigned char *>(user_pass.data()), static_cast<int>(user_pass.size()));
    return {value.data(), scheme.size() + static_cast<std::size_t>(length)};
}

void an_authorization_value_holds_a_bearer_token_or_not(void **)
{
    constexpr credential_kind none = credential_kind::none;
    constexpr credential_kind malformed = credential_kind::malformed;
    constexpr credential_kind token = credential_kind::token;

    struct row {
        const char *label;
        std::string_view value;
        credential_kind kind;
        std::string_view token;
    };
    static constexpr row rows[] = {
        {"plain", "Bearer " TOKEN, token, TOKEN},
        {"lower case", "bearer " TOKEN, token, TOKEN},
        {"upper case", "BEARER " TOKEN, token, TOKEN},
        {"mixed case", "bEaReR " TOKEN, token, TOKEN},
        {"two spaces", "Bearer  " TOKEN, token, TOKEN},
        {"many spaces", "Bearer          " TOKEN, token, TOKEN},
        {"space in front", " Bearer " TOKEN, token, TOKEN},
        {"spaces in front", "    Bearer " TOKEN, token, TOKEN},
        {"tab in front", "\tBearer " TOKEN, token, TOKEN},
        {"space at the end", "Bearer " TOKEN " ", token, TOKEN},
        {"spaces at the end", "Bearer " TOKEN "     ", token, TOKEN},
        {"tab at the end", "Bearer " TOKEN "\t", token, TOKEN},
        {"blanks all around", " \t Bearer  " TOKEN " \t ", token, TOKEN},
        {"= at the end", "Bearer " TOKEN "==", token, TOKEN "=="},
        {"= at the end, then a space", "Bearer " TOKEN "= ", token, TOKEN "="},
        {"every kind of character", "Bearer azAZ09-._~+/azAZ09", token, "azAZ09-._~+/azAZ09"},
        {"the form we issue", "Bearer ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf2mQI9v", token, golden},
        {"a token that says Bearer", "Bearer BearerBearerBearer", token, "BearerBearerBearer"},
        {"a token like a JWT", "Bearer eyJhbGciOi.eyJzdWIi.c2ln-_", token, "eyJhbGciOi.eyJzdWIi.c2ln-_"},

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
        const credential have = parse_bearer(row.value);
        assert_number_equal(row.label, have.kind, row.kind);
        assert_view_equal(row.label, have.token, row.token);
        if (row.kind == token) {
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
        const credential have = parse_bearer({value.data(), scheme.size() + length});
        const bool want = length >= 16 && length <= 512;

        assert_number_equal(label_at("length", length), have.kind,
                            want ? credential_kind::token : credential_kind::malformed);
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
        assert_number_equal(label_at("case variant", cases), parse_bearer({value.data(), value.size()}).kind,
                            credential_kind::token);
    }

    for (std::size_t position = 0; position < lower.size(); position++) {
        for (int byte = 0; byte < 256; byte++) {
            plain.copy(value.data(), plain.size());
            value[position] = static_cast<char>(byte);

            const bool same = byte == lower[position] || byte == lower[position] - 'a' + 'A';
            if ((parse_bearer({value.data(), value.size()}).kind == credential_kind::token) != same) {
                fail_msg("byte 0x%02x at %zu is judged wrongly", static_cast<unsigned>(byte), position);
            }
        }
    }
}

void nothing_is_read_behind_the_end_of_a_value(void **)
{
    constexpr std::string_view whole = "Bearer " TOKEN;
    for (std::size_t length = 0; length < whole.size(); length++) {
        assert_number_equal(label_at("length", length), parse_bearer(whole.substr(0, length)).kind,
                            length < 6 ? credential_kind::none : credential_kind::malformed);
    }
    constexpr std::string_view longer = "Bearers";
    assert_number_equal("s behind it", parse_bearer(longer.substr(0, 6)).kind, credential_kind::malformed);
    assert_number_equal("blanks behind it", parse_bearer(std::string_view{"   Bearer"}.substr(0, 2)).kind,
                        credential_kind::none);
}

void only_a_space_ends_the_scheme(void **)
{
    constexpr std::string_view plain = "Bearer " TOKEN;
    std::array<char, plain.size()> value;

    for (int byte = 0; byte < 256; byte++) {
        plain.copy(value.data(), plain.size());
        value[6] = static_cast<char>(byte);

        const credential_kind want = byte == ' '      ? credential_kind::token
                                     : is_tchar(byte) ? credential_kind::none
                                                      : credential_kind::malformed;
        if (parse_bearer({value.data(), value.size()}).kind != want) {
            fail_msg("byte 0x%02x is judged wrongly", static_cast<unsigned>(byte));
        }
    }
}

void each_scheme_that_is_accepted_is_recognised_and_no_other(void **)
{
    constexpr credential_kind none = credential_kind::none;
    constexpr credential_kind malformed = credential_kind::malformed;
    constexpr credential_kind token = credential_kind::token;

    struct row {
        const char *label;
        std::string_view value;
        credential_kind by_bearer, by_token, by_basic, by_all;
    };
    static constexpr row rows[] = {
        {"Bearer", "Bearer " TOKEN, token, none, none, token},
        {"token", "token " TOKEN, none, token, none, token},
        {"Token", "Token  " TOKEN " ", none, token, none, token},
        {"TOKEN", " TOKEN " TOKEN, none, token, none, token},
        {"Basic", "Basic dTphYmNkZWZnaGlqa2xtbm9w", none, none, token, token},
        {"basic", "basic  dTphYmNkZWZnaGlqa2xtbm9w ", none, none, token, token},
        {"Bearer with nothing", "Bearer", malformed, none, none, malformed},
        {"token with nothing", "token", none, malformed, none, malformed},
        {"Basic with nothing", "Basic", none, none, malformed, malformed},
        {"Bearer with Basic's", "Bearer dTphYmNkZWZnaGlqa2xtbm9w", token, none, none, token},
        {"Basic with Bearer's", "Basic " TOKEN, none, none, malformed, malformed},
        {"token and a tab", "token\t" TOKEN, none, malformed, none, malformed},
        {"Basic and a tab", "Basic\tdTphYmNkZWZnaGlqa2xtbm9w", none, none, malformed, malformed},
        {"token as a parameter", "Token token=\"" TOKEN "\"", none, malformed, none, malformed},
        {"two tokens", "token " TOKEN ", token " TOKEN, none, malformed, none, malformed},
        {"tokens", "tokens " TOKEN, none, none, none, none},
        {"Basics", "Basics dTphYmNkZWZnaGlqa2xtbm9w", none, none, none, none},
        {"another", "Digest " TOKEN, none, none, none, none},
        {"no scheme", TOKEN, none, none, none, none},
        {"empty", "", none, none, none, none},
    };

    for (const row &row : rows) {
        assert_number_equal(row.label, parse(row.value, bearer_alone).kind, row.by_bearer);
        assert_number_equal(row.label, parse(row.value, token_alone).kind, row.by_token);
        assert_number_equal(row.label, parse(row.value, basic_alone).kind, row.by_basic);
        assert_number_equal(row.label, parse(row.value, all_schemes).kind, row.by_all);
        assert_number_equal(row.label, parse(row.value, {}).kind, none);
    }
}

void basic_credentials_hold_a_token_as_their_password(void **)
{
    constexpr credential_kind none = credential_kind::none;
    constexpr credential_kind malformed = credential_kind::malformed;
    constexpr credential_kind token = credential_kind::token;

    struct row {
        const char *label;
        std::string_view user_pass;
        credential_kind kind;           ///< with any user
        credential_kind kind_of_robot;  ///< with a certain one
    };
    static constexpr row rows[] = {
        {"the user", "robot:" TOKEN, token, token},
        {"another user", "alice:" TOKEN, token, none},
        {"no user", ":" TOKEN, token, none},
        {"in capitals", "Robot:" TOKEN, token, none},
        {"a longer user", "robots:" TOKEN, token, none},
        {"a shorter user", "robo:" TOKEN, token, none},
        {"a user in UTF-8",
         "r\xc3\xb6"
         "bot:" TOKEN,
         token, none},
        {"a user with blanks", " robot :" TOKEN, token, none},
        {"another user, and no token", "alice:secret", malformed, none},
        {"the user, and no token", "robot:secret", malformed, malformed},
        {"an empty password", "robot:", malformed, malformed},
        {"the token as the user", TOKEN ":", malformed, none},
        {"the token as the user, as GitHub has it", TOKEN ":x-oauth-basic", malformed, none},
        {"the token alone", TOKEN, malformed, malformed},
        {"a colon alone", ":", malformed, none},
        {"nothing", "", malformed, malformed},
        {"two colons", "robot::" TOKEN, malformed, malformed},
        {"a colon in the token", "robot:abcdefgh:ijklmnop", malformed, malformed},
        {"two tokens", "robot:" TOKEN ":" TOKEN, malformed, malformed},
        {"a blank behind it", "robot:" TOKEN " ", malformed, malformed},
        {"a line end behind it", "robot:" TOKEN "\n", malformed, malformed},
        {"a zero behind it", "robot:" TOKEN "\0"sv, malformed, malformed},
        {"a zero in the user", "ro\0bot:" TOKEN ""sv, malformed, malformed},
        {"a line end in the user", "robot\n:" TOKEN, malformed, malformed},
    };

    for (const row &row : rows) {
        const std::string_view value = basic(row.user_pass);
        const credential any = parse(value, basic_alone);
        assert_number_equal(row.label, any.kind, row.kind);
        assert_view_equal(row.label, any.token, row.kind == token ? TOKEN : "");
        const credential robot = parse(value, basic_of_robot);
        assert_number_equal(row.label, robot.kind, row.kind_of_robot);
        assert_view_equal(row.label, robot.token, row.kind_of_robot == token ? TOKEN : "");
    }
}

void a_user_name_has_no_control_characters(void **)
{
    for (int byte = 0; byte < 256; byte++) {
        std::array<char, 19> user_pass;
        constexpr std::string_view plain = "u?:" TOKEN;
        plain.copy(user_pass.data(), plain.size());
        user_pass[1] = static_cast<char>(byte);

        const bool is_good = byte >= 0x20 && byte != 0x7f && byte != ':';
        assert_number_equal(label_at("byte", static_cast<std::size_t>(byte)),
                            parse(basic({user_pass.data(), user_pass.size()}), basic_alone).kind,
                            is_good ? credential_kind::token : credential_kind::malformed);
    }
}

void a_password_has_the_lengths_of_a_token_and_a_user_the_rest_of_the_buffer(void **)
{
    static std::array<char, 1200> user_pass;
    for (std::size_t user = 0; user <= 600; user += user == 0 || user >= 500 ? 1 : 100) {
        for (const std::size_t length : {0, 15, 16, 17, 511, 512, 513}) {
            user_pass.fill('a');
            user_pass[user] = ':';
            const credential have = parse(basic({user_pass.data(), user + 1 + length}), basic_alone);
            const bool want = length >= 16 && length <= 512 && user + 1 + length <= 1023;
            assert_number_equal(label_at("user", user), have.kind,
                                want ? credential_kind::token : credential_kind::malformed);
            assert_number_equal(label_at("length", length), have.token.size(), want ? length : 0);
        }
    }
}

void base64_has_one_spelling(void **)
{
    struct row {
        const char *label;
        std::string_view value;
        bool want;
    };
    static constexpr row rows[] = {
        {"without padding", "Basic dTphYmNkZWZnaGlqa2xtbm9w", true},
        {"one more", "Basic dXU6YWJjZGVmZ2hpamtsbW5vcA==", true},
        {"two more", "Basic dXV1OmFiY2RlZmdoaWprbG1ub3A=", true},
        {"a padding that is missing", "Basic dXU6YWJjZGVmZ2hpamtsbW5vcA=", false},
        {"all of it", "Basic dXU6YWJjZGVmZ2hpamtsbW5vcA", false},
        {"all of it, of a longer one", "Basic dTphYmNkZWZnaGlqa2xtbm9wcXJzdA", false},
        {"a longer one", "Basic dTphYmNkZWZnaGlqa2xtbm9wcXJzdA==", true},
        {"one that is too long", "Basic dXV1OmFiY2RlZmdoaWprbG1ub3A==", false},
        {"a whole group of it", "Basic dTphYmNkZWZnaGlqa2xtbm9w====", false},
        {"three of a group", "Basic dTphYmNkZWZnaGlqa2xtbm9wA===", false},
        {"in the middle", "Basic dXU6YW==ZGVmZ2hpamtsbW5vcA==", false},
        {"bits behind the end, of two digits", "Basic dXU6YWJjZGVmZ2hpamtsbW5vcB==", false},
        {"bits behind the end, of three digits", "Basic dXV1OmFiY2RlZmdoaWprbG1ub3B=", false},
        {"a blank", "Basic dTphYmNk ZWZnaGlqa2xtbm9w", false},
        {"a line end", "Basic dTphYmNk\r\nZWZnaGlqa2xtbm9w", false},
        {"a comma", "Basic dTphYmNkZWZnaGlqa2xtbm9w,", false},
        {"two of it", "Basic dTphYmNkZWZnaGlqa2xtbm9w, Basic dTphYmNkZWZnaGlqa2xtbm9w", false},
        {"digits of base64url", "Basic dT86-_NkZWZnaGlqa2xtbm9w", false},
    };
    for (const row &row : rows) {
        assert_number_equal(row.label, parse(row.value, basic_alone).kind,
                            row.want ? credential_kind::token : credential_kind::malformed);
    }

    // Another byte in the place of any digit is another text, or none.
    constexpr std::string_view plain = "dTphYmNkZWZnaGlqa2xtbm9w";
    for (int byte = 0; byte < 256; byte++) {
        std::array<char, plain.size()> text;
        plain.copy(text.data(), plain.size());
        text[4] = static_cast<char>(byte);
        static std::optional<basic_buffer> buffer;
        const auto have = buffer.emplace().decode({text.data(), text.size()});
        assert_number_equal(label_at("byte", static_cast<std::size_t>(byte)), have.has_value(),
                            is_alphanumeric(byte) || byte == '+' || byte == '/');
    }
}

void decoded_credentials_are_wiped(void **)
{
    alignas(basic_buffer) static std::array<unsigned char, sizeof(basic_buffer)> memory;

    for (const std::string_view text : {"dTphYmNkZWZnaGlqa2xtbm9w"sv, "dTphYmNkZWZnaGlqa2xtbm9w!!!!"sv}) {
        auto *buffer = new (memory.data()) basic_buffer;
        const bool is_good = buffer->decode(text).has_value();
        assert_number_equal("it is base64", is_good, text.size() == 24);
        const std::string_view contents{reinterpret_cast<const char *>(memory.data()), memory.size()};
        assert_row("before", contents.find(TOKEN) != std::string_view::npos);
        buffer->~basic_buffer();
        for (const std::string_view part : {"abcd"sv, "efgh"sv, "ijkl"sv, "mnop"sv}) {
            assert_row("after", contents.find(part) == std::string_view::npos);
        }
    }
}

void a_value_alone_is_a_token_or_nothing(void **)
{
    struct row {
        const char *label;
        std::string_view value;
        credential_kind as_field, as_value;
    };
    static constexpr row rows[] = {
        {"a token", TOKEN, credential_kind::token, credential_kind::token},
        {"blanks around it", " \t" TOKEN "\t ", credential_kind::token, credential_kind::malformed},
        {"empty", "", credential_kind::none, credential_kind::none},
        {"blanks", " \t ", credential_kind::none, credential_kind::malformed},
        {"a scheme", "Bearer " TOKEN, credential_kind::malformed, credential_kind::malformed},
        {"a list", TOKEN ", " TOKEN, credential_kind::malformed, credential_kind::malformed},
        {"too short", "abcdefghijklmno", credential_kind::malformed, credential_kind::malformed},
    };
    for (const row &row : rows) {
        assert_number_equal(row.label, parse_field(row.value).kind, row.as_field);
        assert_view_equal(row.label, parse_field(row.value).token, row.as_field == credential_kind::token ? TOKEN : "");
        assert_number_equal(row.label, parse_value(row.value).kind, row.as_value);
        assert_view_equal(row.label, parse_value(row.value).token, row.as_value == credential_kind::token ? TOKEN : "");
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
        cmocka_unit_test(each_scheme_that_is_accepted_is_recognised_and_no_other),
        cmocka_unit_test(basic_credentials_hold_a_token_as_their_password),
        cmocka_unit_test(a_user_name_has_no_control_characters),
        cmocka_unit_test(a_password_has_the_lengths_of_a_token_and_a_user_the_rest_of_the_buffer),
        cmocka_unit_test(base64_has_one_spelling),
        cmocka_unit_test(decoded_credentials_are_wiped),
        cmocka_unit_test(a_value_alone_is_a_token_or_nothing),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
