#include "pat_cmocka.h"

#include "core/pat_address.h"

#include <algorithm>
#include <array>
#include <optional>

namespace {

using namespace pat;
using namespace pat::test;
using namespace std::string_view_literals;

/// The bytes of an address that count, and none of a peer without one.
std::span<const std::byte> view(const address &of) noexcept
{
    const std::size_t length = of.family == address_family::v4 ? 4 : of.family == address_family::v6 ? 16 : 0;
    return std::span{of.bytes}.first(length);
}

/// A range in binary form. A test that gives it something else than a range fails in the first assertion after it.
cidr make_cidr(std::string_view text) noexcept
{
    cidr result{};
    if (parse_cidr(text, result) != cidr_error::none) {
        result.length = 0;
    }
    return result;
}

/// Ranges one after the other, as in a record. At the end of its storage, for a sanitizer to see a read behind it.
struct cidrs {
    std::array<std::byte, 8 * max_cidr_length> storage;
    std::size_t length = 0;

    [[nodiscard]] std::span<const std::byte> view() const noexcept { return std::span{storage}.last(length); }
};

void prepend(cidrs &to, const cidr &one) noexcept
{
    to.length += one.length;
    std::ranges::copy(one.view(), to.storage.end() - static_cast<std::ptrdiff_t>(to.length));
}

/// More than there is on the stack.
std::string_view far_too_long() noexcept
{
    static std::array<char, 16 << 20> text;
    text.fill('1');
    return {text.data(), text.size()};
}

void an_address_is_read_from_text(void **)
{
    struct row {
        const char *label;
        std::string_view text;
        std::string_view want;  ///< in hexadecimal, 4 or 16 bytes; empty if it is refused
    };
    static const row rows[] = {
        {"v4", "192.0.2.1", "c0000201"},
        {"v4, lowest", "0.0.0.0", "00000000"},
        {"v4, highest", "255.255.255.255", "ffffffff"},
        {"v6", "2001:db8::1", "20010db8000000000000000000000001"},
        {"v6 in upper case", "2001:DB8::ABCD", "20010db800000000000000000000abcd"},
        {"v6 in full", "2001:0db8:0000:0000:0000:0000:0000:0001", "20010db8000000000000000000000001"},
        {"v6, lowest", "::", "00000000000000000000000000000000"},
        {"v6, highest", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffffffffffffffffffffffffffffffff"},
        {"v6 loopback", "::1", "00000000000000000000000000000001"},
        {"v6 with a v4 end", "64:ff9b::192.0.2.1", "0064ff9b0000000000000000c0000201"},
        {"v4-compatible is v6", "::192.0.2.1", "000000000000000000000000c0000201"},
        {"mapped", "::ffff:192.0.2.1", "c0000201"},
        {"mapped, in hexadecimal", "::ffff:c000:201", "c0000201"},
        {"mapped, in upper case", "::FFFF:192.0.2.1", "c0000201"},
        {"mapped, as long as can be", "0000:0000:0000:0000:0000:ffff:255.255.255.255", "ffffffff"},
        {"one bit beside mapped", "::fffe:192.0.2.1", "00000000000000000000fffec0000201"},
        {"mapped one group too early", "::ffff:0:192.0.2.1", "0000000000000000ffff0000c0000201"},
        {"mapped with a bit in front", "8000::ffff:192.0.2.1", "80000000000000000000ffffc0000201"},

        {"empty", "", ""},
        {"a word", "localhost", ""},
        {"three parts", "192.0.2", ""},
        {"five parts", "192.0.2.1.1", ""},
        {"a part of 256", "192.0.2.256", ""},
        {"a part of nothing", "192..2.1", ""},
        {"dot at the end", "192.0.2.1.", ""},
        {"leading zero", "192.0.2.01", ""},
        {"hexadecimal part", "0xc0.0.2.1", ""},
        {"negative part", "192.0.2.-1", ""},
        {"one number", "3221225985", ""},
        {"space in front", " 192.0.2.1", ""},
        {"space at the end", "192.0.2.1 ", ""},
        {"line end", "192.0.2.1\n", ""},
        {"port", "192.0.2.1:80", ""},
        {"prefix length", "192.0.2.1/32", ""},
        {"three colons", "2001:::1", ""},
        {"two times ::", "2001::db8::1", ""},
        {"seven groups", "1:2:3:4:5:6:7", ""},
        {"nine groups", "1:2:3:4:5:6:7:8:9", ""},
        {"five digits", "2001:0db80::1", ""},
        {"not a digit", "2001:db8::g", ""},
        {"colon at the end", "2001:db8::1:", ""},
        {"brackets", "[2001:db8::1]", ""},
        {"zone", "fe80::1%eth0", ""},
        {"mapped, wrong v4", "::ffff:192.0.2.256", ""},
        {"one character longer than can be", "00000:0000:0000:0000:0000:ffff:255.255.255.255", ""},
        {"much too long", "2001:0db8:0000:0000:0000:0000:0000:0001:2001:0db8:0000:0000:0000:0000:0000:0001", ""},
        {"far too long", far_too_long(), ""},
        {"right, then much more",
         "192.0.2.1                                                                                      ", ""},
    };

    std::array<std::byte, 16> bytes;
    for (const row &row : rows) {
        assert_true(parse_address("192.0.2.1").has_value());  // of which nothing may be taken for what cannot be read
        const auto have = parse_address(row.text);
        assert_number_equal(row.label, have.has_value(), !row.want.empty());
        if (have) {
            assert_number_equal(row.label, have->family,
                                row.want.size() == 8 ? address_family::v4 : address_family::v6);
            assert_bytes_equal(row.label, view(*have), unhex(row.want, bytes));
        }
    }
}

void nothing_hides_behind_a_zero_in_an_address(void **)
{
    struct row {
        const char *label;
        std::string_view text;
    };
    static constexpr row rows[] = {
        {"zero alone", "\0"sv},
        {"zero in front", "\0"
                          "192.0.2.1"sv},
        {"terminating zero", "192.0.2.1\0"sv},
        {"zero and another address", "192.0.2.1\0, 10.0.0.0"sv},
        {"v6, terminating zero", "2001:db8::1\0"sv},
        {"v6, zero and more", "2001:db8::1\0x"sv},
    };

    for (const row &row : rows) {
        cidr ignored{};
        assert_true(parse_address("192.0.2.1").has_value());
        assert_row(row.label, !parse_address(row.text));
        assert_number_equal(row.label, parse_cidr(row.text, ignored), cidr_error::syntax);
    }
}

void nothing_hides_behind_a_zero_in_a_range(void **)
{
    struct row {
        const char *label;
        std::string_view text;
    };
    static constexpr row rows[] = {
        {"zero before the slash", "10.0.0.0\0/8"sv},
        {"zero and more before the slash", "10.0.0.0\0.1/8"sv},
        {"v6, zero before the slash", "2001:db8::\0/32"sv},
        {"zero after the slash", "10.0.0.0/\0"
                                 "8"sv},
        {"zero at the end", "10.0.0.0/8\0"sv},
    };

    for (const row &row : rows) {
        cidr ignored{};
        assert_number_equal(row.label, parse_cidr(row.text, ignored), cidr_error::syntax);
    }
}

void an_address_is_made_of_4_or_16_bytes(void **)
{
    std::array<std::byte, 20> bytes;
    bytes.fill(std::byte{0x20});

    for (std::size_t length = 0; length <= bytes.size(); length++) {
        const auto input = std::span{bytes}.first(length);
        const address have = make_address(input);
        const char *label = label_at("length", length);

        assert_number_equal(label, have.family,
                            length == 4    ? address_family::v4
                            : length == 16 ? address_family::v6
                                           : address_family::none);
        if (have.family != address_family::none) {
            assert_bytes_equal(label, view(have), input);
        }
    }

    const address mapped = make_address(unhex("00000000000000000000ffffc0000201", bytes));
    std::array<std::byte, 4> v4;
    assert_number_equal("mapped", mapped.family, address_family::v4);
    assert_bytes_equal("mapped", view(mapped), unhex("c0000201", v4));
}

void a_mapped_address_is_one_only_with_all_96_bits(void **)
{
    std::array<std::byte, 16> bytes;

    for (std::size_t bit = 0; bit < 128; bit++) {
        static_cast<void>(unhex("00000000000000000000ffffc0000201", bytes));
        bytes[bit / 8] ^= std::byte{0x80} >> (bit % 8);
        assert_number_equal(label_at("bit", bit), make_address(bytes).family,
                            bit < 96 ? address_family::v6 : address_family::v4);
    }
}

void a_range_is_read_from_text(void **)
{
    constexpr cidr_error none = cidr_error::none;
    constexpr cidr_error syntax = cidr_error::syntax;
    constexpr cidr_error host_bits = cidr_error::host_bits;

    struct row {
        const char *label;
        std::string_view text;
        cidr_error error;
        std::string_view want;  ///< in hexadecimal
    };
    static constexpr row rows[] = {
        {"v4", "192.0.2.0/24", none, "0418c0000200"},
        {"v4 alone", "192.0.2.1", none, "0420c0000201"},
        {"v4 /32", "192.0.2.1/32", none, "0420c0000201"},
        {"v4 /31", "192.0.2.2/31", none, "041fc0000202"},
        {"v4 /20", "172.16.16.0/20", none, "0414ac101000"},
        {"v4 /1", "128.0.0.0/1", none, "040180000000"},
        {"v4 /0", "0.0.0.0/0", none, "040000000000"},
        {"v6", "2001:db8::/32", none, "062020010db8000000000000000000000000"},
        {"v6 alone", "2001:db8::1", none, "068020010db8000000000000000000000001"},
        {"v6 /128", "2001:db8::1/128", none, "068020010db8000000000000000000000001"},
        {"v6 /127", "2001:db8::2/127", none, "067f20010db8000000000000000000000002"},
        {"v6 /33", "2001:db8:8000::/33", none, "062120010db8800000000000000000000000"},
        {"v6 /0", "::/0", none, "060000000000000000000000000000000000"},
        {"mapped alone", "::ffff:192.0.2.1", none, "0420c0000201"},
        {"mapped /128", "::ffff:192.0.2.1/128", none, "0420c0000201"},
        {"mapped /120", "::ffff:192.0.2.0/120", none, "0418c0000200"},
        {"mapped /104, in hexadecimal", "::ffff:a00:0/104", none, "04080a000000"},
        {"mapped /96", "::ffff:0:0/96", none, "040000000000"},
        {"a v6 range that holds all mapped ones", "::/80", none, "065000000000000000000000000000000000"},
        {"as long as can be", "0000:0000:0000:0000:0000:ffff:255.255.255.255/128", none, "0420ffffffff"},

        {"v4 host bits", "192.0.2.1/24", host_bits, ""},
        {"v4 lowest host bit", "192.0.2.1/31", host_bits, ""},
        {"v4 highest host bit", "192.0.2.128/24", host_bits, ""},
        {"v4 /0 with a bit", "128.0.0.0/0", host_bits, ""},
        {"v4 /0 with the last bit", "0.0.0.1/0", host_bits, ""},
        {"v4 /20 in the same byte", "172.16.24.0/20", host_bits, ""},
        {"v6 host bits", "2001:db8::1/32", host_bits, ""},
        {"v6 highest host bit", "2001:db8:8000::/32", host_bits, ""},
        {"v6 /127", "2001:db8::1/127", host_bits, ""},
        {"v6 /0 with a bit", "::1/0", host_bits, ""},
        {"mapped host bits", "::ffff:192.0.2.1/120", host_bits, ""},
        {"mapped /96 with a bit", "::ffff:0.0.0.1/96", host_bits, ""},
        {"mapped /95", "::ffff:0:0/95", host_bits, ""},
        {"mapped, with a v4 length", "::ffff:10.0.0.0/8", host_bits, ""},

        {"empty", "", syntax, ""},
        {"a slash", "/", syntax, ""},
        {"no address", "/8", syntax, ""},
        {"no length", "1.2.3.4/", syntax, ""},
        {"v6, no length", "2001:db8::/", syntax, ""},
        {"two lengths", "1.2.3.4/8/8", syntax, ""},
        {"slash at the end", "10.0.0.0/8/", syntax, ""},
        {"two slashes", "10.0.0.0//8", syntax, ""},
        {"v4 /33", "1.2.3.4/33", syntax, ""},
        {"v4 /128", "1.2.3.4/128", syntax, ""},
        {"v6 /129", "2001:db8::1/129", syntax, ""},
        {"mapped /129", "::ffff:1.2.3.4/129", syntax, ""},
        {"/256, which is 0 in a byte", "0.0.0.0/256", syntax, ""},
        {"/4294967296, which is 0 in 32 bits", "0.0.0.0/4294967296", syntax, ""},
        {"/4294967304, which is 8 in 32 bits", "10.0.0.0/4294967304", syntax, ""},
        {"many digits", "10.0.0.0/99999999999999999999999999999999999999999", syntax, ""},
        {"negative", "10.0.0.0/-8", syntax, ""},
        {"negative zero", "0.0.0.0/-0", syntax, ""},
        {"plus", "10.0.0.0/+8", syntax, ""},
        {"hexadecimal", "10.0.0.0/0x8", syntax, ""},
        {"fraction", "10.0.0.0/8.0", syntax, ""},
        {"net mask", "10.0.0.0/255.0.0.0", syntax, ""},
        {"a word", "10.0.0.0/eight", syntax, ""},
        {"a letter behind", "10.0.0.0/8a", syntax, ""},
        {"space in front", " 10.0.0.0/8", syntax, ""},
        {"space before the slash", "10.0.0.0 /8", syntax, ""},
        {"space after the slash", "10.0.0.0/ 8", syntax, ""},
        {"space at the end", "10.0.0.0/8 ", syntax, ""},
        {"line end", "10.0.0.0/8\n", syntax, ""},
        {"zero at the end", "10.0.0.0/8\0"sv, syntax, ""},
        {"comma", "10.0.0.0/8,192.0.2.0/24", syntax, ""},
        {"from and to", "10.0.0.0-10.255.255.255", syntax, ""},
        {"short form", "10/8", syntax, ""},
        {"star", "10.*", syntax, ""},
        {"a word alone", "all", syntax, ""},
        {"wrong v4", "10.0.0.256/8", syntax, ""},
        {"wrong v6", "2001:db8:::/32", syntax, ""},
        {"brackets", "[2001:db8::]/32", syntax, ""},
        {"zone", "fe80::1%1/64", syntax, ""},
        {"over-long address", "00000:0000:0000:0000:0000:ffff:255.255.255.255/128", syntax, ""},
    };

    std::array<std::byte, max_cidr_length> bytes;
    for (const row &row : rows) {
        cidr have{};
        assert_number_equal(row.label, parse_cidr(row.text, have), row.error);
        if (row.error == none) {
            assert_bytes_equal(row.label, have.view(), unhex(row.want, bytes));
        }
    }
}

void a_range_becomes_text_that_reads_as_the_same_range(void **)
{
    struct row {
        std::string_view text;
        std::string_view want;
    };
    static constexpr row rows[] = {
        {"192.0.2.0/24", "192.0.2.0/24"},
        {"192.0.2.1", "192.0.2.1/32"},
        {"0.0.0.0/0", "0.0.0.0/0"},
        {"255.255.255.255", "255.255.255.255/32"},
        {"128.0.0.0/1", "128.0.0.0/1"},
        {"2001:DB8::/32", "2001:db8::/32"},
        {"2001:0db8:0:0:0:0:0:1", "2001:db8::1/128"},
        {"::/0", "::/0"},
        {"::1", "::1/128"},
        {"::ffff:10.0.0.0/104", "10.0.0.0/8"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"},
    };

    for (const row &row : rows) {
        const cidr one = make_cidr(row.text);
        std::array<char, max_cidr_text_length> text;
        std::size_t length = 0;

        assert_row(row.text.data(), one.length != 0);
        const auto rest = format_cidr(one.view(), text, length);
        assert_view_equal(row.text.data(), (std::string_view{text.data(), length}), row.want);
        assert_row(row.text.data(), rest.empty());

        cidr again{};
        assert_number_equal(row.text.data(), parse_cidr({text.data(), length}, again), cidr_error::none);
        assert_bytes_equal(row.text.data(), again.view(), one.view());
    }
}

void ranges_become_text_one_after_the_other(void **)
{
    static constexpr std::string_view texts[] = {"192.0.2.0/24", "2001:db8::/32", "10.0.0.1/32", "::/0"};

    cidrs all{};
    for (auto text = std::rbegin(texts); text != std::rend(texts); ++text) {
        prepend(all, make_cidr(*text));
    }

    auto rest = all.view();
    for (std::string_view want : texts) {
        std::array<char, max_cidr_text_length> text;
        std::size_t length = 0;

        assert_row(want.data(), !rest.empty());
        rest = format_cidr(rest, text, length);
        assert_view_equal(want.data(), (std::string_view{text.data(), length}), want);
    }
    assert_true(rest.empty());
}

void only_whole_ranges_are_ranges(void **)
{
    struct row {
        const char *label;
        std::string_view cidrs;  ///< in hexadecimal
        bool want;
    };
    static constexpr row rows[] = {
        {"none", "", true},
        {"v4", "0418c0000200", true},
        {"v6", "062020010db8000000000000000000000000", true},
        {"v4, v6, v4",
         "0418c0000200"
         "062020010db8000000000000000000000000"
         "04200a000001",
         true},
        {"v4 /0", "040000000000", true},
        {"v4 /32", "0420c0000201", true},
        {"v4 /33", "0421c0000201", false},
        {"v4 /255", "04ffc0000201", false},
        {"v6 /0", "060000000000000000000000000000000000", true},
        {"v6 /128", "068000000000000000000000000000000001", true},
        {"v6 /129", "068100000000000000000000000000000001", false},
        {"family 0", "0018c0000200", false},
        {"family 0 and nothing", "0000", false},
        {"family 2, which is AF_INET", "0218c0000200", false},
        {"family 5", "0518c0000200", false},
        {"family 10, which is AF_INET6", "0a2020010db8000000000000000000000000", false},
        {"family 0x84", "8418c0000200", false},
        {"a byte too many", "0418c000020000", false},
        {"a wrong one behind a right one",
         "0418c0000200"
         "0421c0000201",
         false},
        {"a wrong one before a right one",
         "0421c0000201"
         "0418c0000200",
         false},
        {"v6 with the length of v4", "062020010db8", false},
        {"v4 with the length of v6", "042020010db8000000000000000000000000", false},
    };

    std::array<std::byte, 64> bytes;
    for (const row &row : rows) {
        assert_number_equal(row.label, are_cidrs(unhex(row.cidrs, bytes)), row.want);
    }
}

void ranges_cut_off_anywhere_but_between_two_are_not_ranges(void **)
{
    cidrs all{};
    prepend(all, make_cidr("2001:db8:1::/48"));
    prepend(all, make_cidr("10.0.0.0/8"));
    prepend(all, make_cidr("2001:db8::/32"));
    prepend(all, make_cidr("192.0.2.0/24"));

    const auto whole = all.view();
    assert_int_equal(whole.size(), 6 + 18 + 6 + 18);

    for (std::size_t length = 0; length <= whole.size(); length++) {
        std::array<std::byte, 48> storage;
        const auto cut = std::span{storage}.last(length);
        std::ranges::copy(whole.first(length), cut.begin());

        const bool between = length == 0 || length == 6 || length == 24 || length == 30 || length == 48;
        assert_number_equal(label_at("length", length), are_cidrs(cut), between);
    }
}

void an_address_is_in_a_range_if_the_bits_of_the_prefix_agree(void **)
{
    struct row {
        std::string_view cidr;
        std::string_view peer;
        bool want;
    };
    static constexpr row rows[] = {
        {"192.0.2.0/24", "192.0.2.0", true},
        {"192.0.2.0/24", "192.0.2.255", true},
        {"192.0.2.0/24", "192.0.1.255", false},
        {"192.0.2.0/24", "192.0.3.0", false},
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.0", false},
        {"192.0.2.1", "192.0.2.2", false},
        {"0.0.0.0/0", "0.0.0.0", true},
        {"0.0.0.0/0", "255.255.255.255", true},
        {"128.0.0.0/1", "128.0.0.0", true},
        {"128.0.0.0/1", "255.255.255.255", true},
        {"128.0.0.0/1", "127.255.255.255", false},
        {"0.0.0.0/1", "127.255.255.255", true},
        {"0.0.0.0/1", "128.0.0.0", false},
        {"172.16.0.0/12", "172.16.0.0", true},
        {"172.16.0.0/12", "172.31.255.255", true},
        {"172.16.0.0/12", "172.15.255.255", false},
        {"172.16.0.0/12", "172.32.0.0", false},
        {"10.0.0.0/9", "10.127.255.255", true},
        {"10.0.0.0/9", "10.128.0.0", false},
        {"10.64.0.0/15", "10.65.255.255", true},
        {"10.64.0.0/15", "10.66.0.0", false},
        {"192.0.2.128/25", "192.0.2.128", true},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.2/31", "192.0.2.2", true},
        {"192.0.2.2/31", "192.0.2.3", true},
        {"192.0.2.2/31", "192.0.2.1", false},
        {"192.0.2.2/31", "192.0.2.4", false},
        {"192.0.2.0/24", "::ffff:192.0.2.7", true},
        {"192.0.2.0/24", "::ffff:192.0.3.7", false},
        {"::ffff:192.0.2.0/120", "192.0.2.7", true},
        {"::ffff:192.0.2.0/120", "::ffff:192.0.2.7", true},
        {"::ffff:192.0.2.0/120", "192.0.3.7", false},
        {"::ffff:0:0/96", "192.0.2.1", true},
        {"::ffff:0:0/96", "2001:db8::1", false},

        {"2001:db8::/32", "2001:db8::", true},
        {"2001:db8::/32", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true},
        {"2001:db8::/32", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false},
        {"2001:db8::/32", "2001:db9::", false},
        {"2001:db8::1", "2001:db8::1", true},
        {"2001:db8::1", "2001:db8::", false},
        {"2001:db8::1", "2001:db8::2", false},
        {"2001:db8::2/127", "2001:db8::3", true},
        {"2001:db8::2/127", "2001:db8::1", false},
        {"2001:db8::/29", "2001:dbf:ffff::", true},
        {"2001:db8::/29", "2001:dc0::", false},
        {"2001:db8::/29", "2001:db7::", false},
        {"2001:db8:8000::/33", "2001:db8:8000::", true},
        {"2001:db8:8000::/33", "2001:db8:7fff:ffff::", false},
        {"fe80::/10", "febf:ffff::1", true},
        {"fe80::/10", "fec0::1", false},
        {"::/0", "::", true},
        {"::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true},

        // Families don't mix, also where the bits would agree.
        {"0.0.0.0/0", "::", false},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "192.0.2.1", false},
        {"::/0", "::ffff:192.0.2.1", false},
        {"32.1.0.0/16", "2001::", false},
        {"2001::/16", "32.1.0.0", false},
    };

    for (const row &row : rows) {
        const cidr one = make_cidr(row.cidr);
        const auto peer = parse_address(row.peer);

        assert_row(row.cidr.data(), one.length != 0);
        assert_row(row.peer.data(), peer);
        if (in_cidrs(one.view(), *peer) != row.want) {
            fail_msg("%s should %sbe in %s", row.peer.data(), row.want ? "" : "not ", row.cidr.data());
        }
    }
}

void every_length_of_prefix_splits_at_its_bit(void **)
{
    std::array<std::byte, 16> all_ones;
    all_ones.fill(std::byte{0xff});

    for (std::size_t size : {std::size_t{4}, std::size_t{16}}) {
        for (std::size_t bits = 0; bits <= size * 8; bits++) {
            cidr one{};
            one.length = 2 + size;
            one.bytes[0] = size == 4 ? std::byte{4} : std::byte{6};
            one.bytes[1] = static_cast<std::byte>(bits);
            for (std::size_t bit = 0; bit < bits; bit++) {
                one.bytes[2 + bit / 8] |= std::byte{0x80} >> (bit % 8);
            }
            assert_row(label_at("bits", bits), are_cidrs(one.view()));

            for (std::size_t flipped = 0; flipped < size * 8; flipped++) {
                address peer = make_address(std::span{all_ones}.first(size));
                peer.bytes[flipped / 8] ^= std::byte{0x80} >> (flipped % 8);
                if (in_cidrs(one.view(), peer) != (flipped >= bits)) {
                    fail_msg("/%zu of %zu bytes is wrong about bit %zu", bits, size, flipped);
                }
            }
        }
    }
}

void an_address_is_in_ranges_if_it_is_in_one_of_them(void **)
{
    cidrs all{};
    prepend(all, make_cidr("2001:db8:2::/48"));
    prepend(all, make_cidr("10.0.0.0/8"));
    prepend(all, make_cidr("2001:db8:1::/48"));
    prepend(all, make_cidr("192.0.2.0/24"));

    struct row {
        std::string_view peer;
        bool want;
    };
    static constexpr row rows[] = {
        {"192.0.2.9", true},  {"2001:db8:1::9", true},  {"10.9.9.9", true},        {"2001:db8:2::9", true},
        {"192.0.3.9", false}, {"2001:db8:3::9", false}, {"11.9.9.9", false},       {"2001:db8:0::9", false},
        {"::", false},        {"0.0.0.0", false},       {"::ffff:10.1.1.1", true}, {"::10.1.1.1", false},
    };

    for (const row &row : rows) {
        assert_number_equal(row.peer.data(), in_cidrs(all.view(), *parse_address(row.peer)), row.want);
    }
}

void no_address_is_in_no_ranges(void **)
{
    assert_false(in_cidrs({}, *parse_address("192.0.2.1")));
    assert_false(in_cidrs({}, *parse_address("::1")));
    assert_false(in_cidrs({}, address{}));
}

void a_peer_without_an_address_is_in_no_range(void **)
{
    cidrs all{};
    prepend(all, make_cidr("::/0"));
    prepend(all, make_cidr("0.0.0.0/0"));
    assert_int_equal(all.length, 24);

    assert_false(in_cidrs(all.view(), address{}));
    assert_false(in_cidrs(all.view(), make_address({})));
    assert_true(in_cidrs(all.view(), *parse_address("0.0.0.0")));
    assert_true(in_cidrs(all.view(), *parse_address("::")));
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_read_from_text),
        cmocka_unit_test(nothing_hides_behind_a_zero_in_an_address),
        cmocka_unit_test(nothing_hides_behind_a_zero_in_a_range),
        cmocka_unit_test(an_address_is_made_of_4_or_16_bytes),
        cmocka_unit_test(a_mapped_address_is_one_only_with_all_96_bits),
        cmocka_unit_test(a_range_is_read_from_text),
        cmocka_unit_test(a_range_becomes_text_that_reads_as_the_same_range),
        cmocka_unit_test(ranges_become_text_one_after_the_other),
        cmocka_unit_test(only_whole_ranges_are_ranges),
        cmocka_unit_test(ranges_cut_off_anywhere_but_between_two_are_not_ranges),
        cmocka_unit_test(an_address_is_in_a_range_if_the_bits_of_the_prefix_agree),
        cmocka_unit_test(every_length_of_prefix_splits_at_its_bit),
        cmocka_unit_test(an_address_is_in_ranges_if_it_is_in_one_of_them),
        cmocka_unit_test(no_address_is_in_no_ranges),
        cmocka_unit_test(a_peer_without_an_address_is_in_no_range),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
