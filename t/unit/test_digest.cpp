// Only for SHA256_CTX, by whose size wipe() is judged.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "pat_cmocka.h"

#include "core/pat_digest.h"

#include <algorithm>
#include <array>
#include <optional>
#include <type_traits>

namespace {

using namespace pat;
using namespace pat::test;
using namespace std::string_view_literals;

constexpr std::string_view token = "ropat_7Kq2ZC0mS3wB1xYtVdJ8uLhPnRa5EoGf2mQI9v";

/// A million times 'a', as NIST's long message wants it.
std::string_view as(std::size_t length) noexcept
{
    static std::array<char, 1000000> text;
    text.fill('a');
    return {text.data(), length};
}

void assert_digest(const char *label, const token_digest &have, std::string_view want_hex)
{
    std::array<std::byte, digest_length> want;
    assert_bytes_equal(label, have, unhex(want_hex, want));
}

/// 00 01 02 …
pepper counting_pepper(std::size_t length) noexcept
{
    pepper key{{}, length};
    for (std::size_t i = 0; i < length; i++) {
        key.bytes[i] = static_cast<std::byte>(i);
    }
    return key;
}

std::span<const std::byte> view(const pepper &key) noexcept
{
    return {key.bytes.data(), key.length};
}

void without_a_pepper_a_digest_is_sha_256(void **)
{
    struct row {
        const char *label;
        std::string_view message;
        std::string_view want;
    };
    // The first five are NIST's examples for FIPS 180; the others come from Python's hashlib.
    const row rows[] = {
        {"one block", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"empty", "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"two blocks", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"896 bits",
         "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
         "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
        {"a million a", as(1000000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
        {"a token", token, "521ddc73e16f0b7a2ebaca7f13221d9f6ff295ec6596cf7ba5754c20163ad1a3"},
        {"55 bytes", as(55), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
        {"56 bytes", as(56), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
        {"63 bytes", as(63), "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"},
        {"64 bytes", as(64), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
        {"65 bytes", as(65), "635361c48bb9eab14198e76ea8ab7f1a41685d6ad62aa9146d301d4f17eb0ae0"},
        {"119 bytes", as(119), "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb"},
        {"120 bytes", as(120), "2f3d335432c70b580af0e8e1b3674a7c020d683aa5f73aaaedfdc55af904c21c"},
        {"512 bytes", as(512), "471be6558b665e4f6dd49f1184814d1491b0315d466beea768c153cc5500c836"},
    };

    const token_hasher hash;
    for (const row &row : rows) {
        assert_digest(row.label, hash(row.message), row.want);
    }
}

void with_a_pepper_a_digest_is_hmac_sha_256(void **)
{
    struct row {
        const char *label;
        std::string_view pepper;  ///< in hexadecimal
        std::string_view message;
        std::string_view want;
    };
    // RFC 4231. HMAC fills a key up with zeros, so a short key and 32 bytes that end in zeros are the same key; and a
    // key longer than a block is replaced by its SHA-256, which is what stands here for 131 times 0xaa.
    const row rows[] = {
        {"case 1", "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b000000000000000000000000", "Hi There",
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {"case 2", "4a65666500000000000000000000000000000000000000000000000000000000", "what do ya want for nothing?",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {"case 3", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa000000000000000000000000",
         "\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd"
         "\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd\xdd",
         "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
        {"case 4", "0102030405060708090a0b0c0d0e0f1011121314151617181900000000000000",
         "\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd"
         "\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd",
         "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
        {"case 6", "45ad4b37c6e2fc0a2cfcc1b5da524132ec707615c2cae1dbbc43c97aa521db81",
         "Test Using Larger Than Block-Size Key - Hash Key First",
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
        {"case 7", "45ad4b37c6e2fc0a2cfcc1b5da524132ec707615c2cae1dbbc43c97aa521db81",
         "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be "
         "hashed before being used by the HMAC algorithm.",
         "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
    };

    for (const row &row : rows) {
        pepper key{};
        key.length = unhex(row.pepper, key.bytes).size();

        const token_hasher hash{key};
        assert_digest(row.label, hash(row.message), row.want);
    }
}

void every_byte_of_a_long_pepper_counts(void **)
{
    struct row {
        const char *label;
        std::size_t pepper_length;
        std::string_view message;
        std::string_view want;
    };
    // hmac.new(bytes(range(length)), message, "sha256").hexdigest() in Python.
    const row rows[] = {
        {"32", 32, token, "bfe9f67ff026bba256879e1cfe4d4a76ba1082b4ba452bc6bdfded1df75a1438"},
        {"32, empty", 32, "", "d38b42096d80f45f826b44a9d5607de72496a415d3f4a1a8c88e3bb9da8dc1cb"},
        {"32, long", 32, as(512), "5d4e9c1a601a084931cf43b680978ecf89fb1cb41b693ac2e4e2f5b8adb87ea9"},
        {"33", 33, token, "2a8fe8c840ba597db2a165ccd17715eb2e16b789b35ccf441a09ad18479b1324"},
        {"33, empty", 33, "", "1e6cbc4f2b2982c0ae4653874c5a1b00c5178e7302b650b3577e5eb8cb10f7b7"},
        {"33, long", 33, as(512), "068b3203f17616ad94689beca2bbd420828b2049ec52cf65406d5cf50370cda2"},
        {"63", 63, token, "6d22fea5b2b96803cec1d810e3b2c7138a50e088e8d5a336ac8c6a4309ad9f95"},
        {"63, empty", 63, "", "91a6da6e552749b42d019214821d37ec711ae369b9e717aa8b5e48ec2e9ca359"},
        {"63, long", 63, as(512), "390c17953115a8f63a5ffa510d26956d9f4894d201e07954af624f0295e9324a"},
        {"64", 64, token, "8cd1f4c3912b9702f51910bdbf3411fb7b23150a1cd1a5b62debf0beba01a1aa"},
        {"64, empty", 64, "", "3499f163f48604c0b15ac89e4e7c66f314fb3b203b8ac2f564828e62f6be9d9d"},
        {"64, long", 64, as(512), "1d1fdfc3b6c3a33553fa6d68dd570cb6590e2f6f3cb8553352e50bdaad662a2e"},
    };

    for (const row &row : rows) {
        const token_hasher hash{counting_pepper(row.pepper_length)};
        assert_digest(row.label, hash(row.message), row.want);
    }
}

void bytes_behind_the_end_of_a_pepper_do_not_count(void **)
{
    const pepper clean = counting_pepper(33);
    pepper dirty = clean;
    std::fill(dirty.bytes.begin() + 33, dirty.bytes.end(), std::byte{0xee});

    const token_hasher a{clean};
    const token_hasher b{dirty};
    assert_bytes_equal("digest", a(token), b(token));
    assert_bytes_equal("key id", a.key(), b.key());
}

void a_hasher_gives_the_same_digest_again(void **)
{
    const token_hasher plain;
    const token_hasher keyed{counting_pepper(32)};
    const token_hasher copy = keyed;

    const token_digest first = plain(token);
    const token_digest first_keyed = keyed(token);
    static_cast<void>(plain("something else"));
    static_cast<void>(keyed("something else"));

    assert_bytes_equal("plain", plain(token), first);
    assert_bytes_equal("keyed", keyed(token), first_keyed);
    assert_bytes_equal("copied", copy(token), first_keyed);
}

void a_hasher_knows_its_scheme(void **)
{
    assert_number_equal("plain", token_hasher{}.scheme(), digest_scheme::sha256);
    assert_number_equal("keyed", token_hasher{counting_pepper(32)}.scheme(), digest_scheme::hmac_sha256);

    // The store holds these numbers.
    assert_number_equal("value of sha256", digest_scheme::sha256, 1);
    assert_number_equal("value of hmac_sha256", digest_scheme::hmac_sha256, 2);
}

void the_key_id_is_the_start_of_a_hash_of_a_label_and_the_pepper(void **)
{
    struct row {
        const char *label;
        std::size_t pepper_length;
        std::string_view want;
    };
    // hashlib.sha256(b"nginx-auth-pat pepper" + bytes(range(length))).hexdigest()[:16] in Python.
    static constexpr row rows[] = {
        {"32", 32, "a96e0a5949ae638a"},
        {"33", 33, "0a30835a6c612715"},
        {"63", 63, "d9aecf03f3ad4e93"},
        {"64", 64, "f0d2b4f15b9c001b"},
    };

    std::array<std::byte, 8> bytes;
    for (const row &row : rows) {
        const token_hasher hash{counting_pepper(row.pepper_length)};
        assert_bytes_equal(row.label, hash.key(), unhex(row.want, bytes));
    }

    assert_bytes_equal("no pepper", token_hasher{}.key(), unhex("0000000000000000", bytes));
}

void peppers_that_differ_in_one_bit_differ_in_key_id_and_digest(void **)
{
    const pepper key = counting_pepper(64);
    const token_hasher hash{key};
    const token_digest of_token = hash(token);

    for (std::size_t bit = 0; bit < 64 * 8; bit++) {
        pepper other = key;
        other.bytes[bit / 8] ^= std::byte{1} << (bit % 8);

        const token_hasher other_hash{other};
        assert_row(label_at("bit", bit), other_hash.key() != hash.key());
        assert_row(label_at("bit", bit), other_hash(token) != of_token);
    }
}

void a_pepper_and_the_same_with_a_zero_behind_it_differ_in_key_id(void **)
{
    pepper longer = counting_pepper(32);
    longer.length = 33;

    assert_true(token_hasher{longer}.key() != token_hasher{counting_pepper(32)}.key());
}

void wiping_leaves_nothing_that_was_derived_from_the_pepper(void **)
{
    static_assert(std::is_standard_layout_v<token_hasher> && std::is_trivially_copyable_v<token_hasher>);
    constexpr std::size_t states_length = 2 * sizeof(SHA256_CTX);
    static_assert(sizeof(token_hasher) >= states_length, "the two states come first");

    static constexpr std::array<std::byte, sizeof(SHA256_CTX)> zeros{};

    token_hasher hash{counting_pepper(32)};
    const auto states = std::as_bytes(std::span{&hash, 1}).first(states_length);
    const auto inner = states.first(sizeof(SHA256_CTX));
    const auto outer = states.last(sizeof(SHA256_CTX));

    assert_memory_not_equal(inner.data(), zeros.data(), zeros.size());
    assert_memory_not_equal(outer.data(), zeros.data(), zeros.size());

    hash.wipe();

    assert_bytes_equal("inner", inner, zeros);
    assert_bytes_equal("outer", outer, zeros);
}

void a_wiped_hasher_can_be_assigned_to(void **)
{
    token_hasher hash{counting_pepper(32)};
    const token_digest before = hash(token);

    hash.wipe();
    hash = token_hasher{counting_pepper(32)};

    assert_bytes_equal("digest", hash(token), before);
}

#define HEX_32 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define HEX_16 "00112233445566778899aabbccddeeff"
#define RAW_31 "a raw pepper that is 31 bytes!!"

void a_pepper_is_64_to_128_hexadecimal_digits_or_32_to_64_bytes(void **)
{
    struct row {
        const char *label;
        std::string_view contents;
        std::string_view want;  ///< in hexadecimal; empty if it is refused
    };
    static constexpr row rows[] = {
        {"64 digits", HEX_32, HEX_32},
        {"64 digits and a line end", HEX_32 "\n", HEX_32},
        {"64 digits and a DOS line end", HEX_32 "\r\n", HEX_32},
        {"64 digits in upper case", "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF", HEX_32},
        {"64 digits in both cases", "00112233445566778899aAbBcCdDeEfF00112233445566778899AaBbCcDdEeFf", HEX_32},
        {"66 digits", HEX_32 "0f", HEX_32 "0f"},
        {"126 digits", HEX_32 HEX_16 "00112233445566778899aabbccddee", HEX_32 HEX_16 "00112233445566778899aabbccddee"},
        {"128 digits", HEX_32 HEX_32, HEX_32 HEX_32},
        {"128 digits and a line end", HEX_32 HEX_32 "\n", HEX_32 HEX_32},
        {"128 digits and a DOS line end", HEX_32 HEX_32 "\r\n", HEX_32 HEX_32},
        {"65 digits", HEX_32 "0", ""},
        {"65 digits and a line end", HEX_32 "0\n", ""},
        {"127 digits", HEX_32 HEX_16 "00112233445566778899aabbccddeef", ""},
        {"130 digits", HEX_32 HEX_32 "00", ""},
        {"130 digits and a line end", HEX_32 HEX_32 "00\n", ""},
        {"64 digits and more white space", HEX_32 " \t\n\n", HEX_32},
        {"64 digits behind white space", " " HEX_32, ""},
        {"58 digits and two line ends, which would do as bytes", HEX_16 "00112233445566778899aabbcc\n\n", ""},
        {"64 digits and a letter", HEX_32 "g", ""},
        {"64 digits with 0x in front", "0x" HEX_32, ""},
        {"64 digits in two lines of 32 and one more", HEX_16 "\n" HEX_16 "\n", ""},

        // Digits that are too few are a pepper cut short, though as many bytes would do.
        {"62 digits", "00112233445566778899aabbccddeeff00112233445566778899aabbccddee", ""},
        {"62 digits and a line end", "00112233445566778899aabbccddeeff00112233445566778899aabbccddee\n", ""},
        {"63 digits", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeef", ""},
        {"32 digits", HEX_16, ""},
        {"31 digits and a line end", "00112233445566778899aabbccddeef\n", ""},

        {"31 bytes", RAW_31, ""},
        {"32 bytes", RAW_31 "!", "6120726177207065707065722074686174206973203331206279746573212121"},
        {"31 bytes and a line end, which counts", RAW_31 "\n",
         "612072617720706570706572207468617420697320333120627974657321210a"},
        {"32 bytes and a DOS line end, which counts", RAW_31 "!\r\n",
         "61207261772070657070657220746861742069732033312062797465732121210d0a"},
        {"64 bytes", RAW_31 "!" RAW_31 "!",
         "6120726177207065707065722074686174206973203331206279746573212121"
         "6120726177207065707065722074686174206973203331206279746573212121"},
        {"65 bytes", RAW_31 "!" RAW_31 "!!", ""},
        {"64 bytes and a line end", RAW_31 "!" RAW_31 "!\n", ""},
        {"32 bytes with zeros",
         "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
         "\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x00"sv,
         "000102030405060708090a0b0c0d0e0f808182838485868788898a8b8c8d8e00"},
        {"32 bytes next to the digits in ASCII", "0123456789:;<=>?@ABCDEFGHIJKLM`a",
         "303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d6061"},

        {"empty", "", ""},
        {"a line end", "\n", ""},
        {"a DOS line end", "\r\n", ""},
    };

    std::array<std::byte, max_pepper_length + 1> bytes;
    for (const row &row : rows) {
        const auto have = parse_pepper(row.contents);
        assert_number_equal(row.label, have.has_value(), !row.want.empty());
        if (have) {
            assert_bytes_equal(row.label, view(*have), unhex(row.want, bytes));
        }
    }
}

void only_hexadecimal_digits_are_read_as_such(void **)
{
    constexpr std::string_view plain = HEX_32;
    std::array<char, plain.size()> contents;

    for (int byte = 0; byte < 256; byte++) {
        plain.copy(contents.data(), plain.size());
        contents[10] = static_cast<char>(byte);

        const bool is_digit =
            (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'F') || (byte >= 'a' && byte <= 'f');
        const char *label = label_at("byte", static_cast<std::size_t>(byte));

        const bool is_space = byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';

        const auto have = parse_pepper({contents.data(), contents.size()});
        assert_number_equal(label, have.has_value(), !is_space);
        if (have) {
            assert_number_equal(label, have->length, is_digit ? 32 : 64);
        }
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(without_a_pepper_a_digest_is_sha_256),
        cmocka_unit_test(with_a_pepper_a_digest_is_hmac_sha_256),
        cmocka_unit_test(every_byte_of_a_long_pepper_counts),
        cmocka_unit_test(bytes_behind_the_end_of_a_pepper_do_not_count),
        cmocka_unit_test(a_hasher_gives_the_same_digest_again),
        cmocka_unit_test(a_hasher_knows_its_scheme),
        cmocka_unit_test(the_key_id_is_the_start_of_a_hash_of_a_label_and_the_pepper),
        cmocka_unit_test(peppers_that_differ_in_one_bit_differ_in_key_id_and_digest),
        cmocka_unit_test(a_pepper_and_the_same_with_a_zero_behind_it_differ_in_key_id),
        cmocka_unit_test(wiping_leaves_nothing_that_was_derived_from_the_pepper),
        cmocka_unit_test(a_wiped_hasher_can_be_assigned_to),
        cmocka_unit_test(a_pepper_is_64_to_128_hexadecimal_digits_or_32_to_64_bytes),
        cmocka_unit_test(only_hexadecimal_digits_are_read_as_such),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
