#include "pat_cmocka.h"

#include "core/pat_address.h"
#include "core/pat_bytes.h"
#include "core/pat_crc32c.h"
#include "core/pat_record.h"
#include "core/pat_rules.h"
#include "writer/pat_held.h"

#include <algorithm>
#include <array>
#include <optional>

/// Where the golden records are, as seen from the folder the tests run in.
#ifndef PAT_GOLDEN_DIR
#define PAT_GOLDEN_DIR "t/unit/golden"
#endif

namespace {

using namespace pat;
using namespace pat::test;
using namespace std::string_view_literals;

constexpr std::int64_t year_9999 = 253402300799;

/// 00 01 02 … 1f, as in golden/generate.py.
token_digest the_digest() noexcept
{
    token_digest result;
    for (std::size_t i = 0; i < result.size(); i++) {
        result[i] = static_cast<std::byte>(i);
    }
    return result;
}

const token_key the_key = make_token_key(the_digest());

/// The value of a record while a test changes it. It stands at the end of its storage, for a sanitizer to see a read
/// behind it.
class specimen {
public:
    explicit specimen(std::span<const std::byte> from) noexcept : length_{from.size()}
    {
        std::ranges::copy(from, bytes().begin());
    }

    [[nodiscard]] std::span<std::byte> bytes() noexcept { return std::span{storage_}.last(length_); }

    [[nodiscard]] unsigned u16(std::size_t at) noexcept { return load_le<std::uint16_t>(&bytes()[at]); }

    void set_u8(std::size_t at, unsigned value) noexcept { bytes()[at] = static_cast<std::byte>(value); }

    void set_u16(std::size_t at, unsigned value) noexcept
    {
        set_u8(at, value & 0xff);
        set_u8(at + 1, value >> 8);
    }

    /// Makes the checksum right, by the rule in pat_record.h.
    void seal(std::span<const std::byte> key) noexcept
    {
        const std::uint32_t crc = crc32c_by_table(bytes().subspan(4), crc32c_by_table(key));
        for (std::size_t i = 0; i < 4; i++) {
            set_u8(i, static_cast<unsigned>(crc >> (8 * i) & 0xff));
        }
    }

private:
    std::array<std::byte, max_record_length + 64> storage_;
    std::size_t length_;
};

/// Reads a file of golden/generate.py: bytes in hexadecimal, and comments from # to the end of a line.
std::span<const std::byte> read_golden(const char *path, std::span<std::byte> out)
{
    std::size_t digits = 0;

    std::FILE *file = std::fopen(path, "r");
    if (file == nullptr) {
        print_error("%s can't be read; the tests run in the project's folder\n", path);
        _fail(__FILE__, __LINE__);
    }
    bool comment = false;
    for (int c; (c = std::fgetc(file)) != EOF;) {
        comment = c == '#' || (comment && c != '\n');
        if (comment || c == ' ' || c == '\n' || digits / 2 == out.size()) {
            continue;
        }
        const auto value = static_cast<std::byte>(digit_value(static_cast<char>(c)));
        out[digits / 2] = digits % 2 == 0 ? value << 4 : out[digits / 2] | value;
        digits++;
    }
    std::fclose(file);

    assert_row(path, digits != 0 && digits % 2 == 0);
    return out.first(digits / 2);
}

/// Claims of the full record: tenant=referon, and a note of 258 characters, so that both bytes of a length count.
struct claim_bytes {
    record_buffer buffer{};
    std::size_t length = 0;

    [[nodiscard]] std::span<const std::byte> view() const noexcept { return std::span{buffer}.first(length); }
};

std::string_view xs(std::size_t length) noexcept
{
    static std::array<char, 70000> text;
    text.fill('x');
    return {text.data(), length};
}

std::span<const std::byte> full_claims()
{
    static claim_bytes claims;
    claims.length = 0;
    assert_true(append_claim({"tenant", "referon"}, claims.buffer, claims.length));
    assert_true(append_claim({"note", xs(258)}, claims.buffer, claims.length));
    return claims.view();
}

/// 192.0.2.0/24, 2001:db8::/32
constexpr std::string_view full_cidrs = "\x04\x18\xc0\x00\x02\x00"
                                        "\x06\x20\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"sv;

token_record minimal_record() noexcept
{
    token_record result;
    result.id = "a";
    result.subject = "b";
    return result;
}

token_record full_record()
{
    token_record result;
    static_cast<record_scalars &>(result) = {
        .sequence = 0x0102030405060708,
        .issued_at = 1700000000,
        .not_before = 1700000060,
        .expires_at = 1731536000,
        .revoked_at = 1710000000,
        .local_revoked_at = 1710000001,
        .denied = true,
    };
    result.generation = 0x21;
    result.id = "tok_01HV.x:y@z-9";
    result.subject = "user-42";
    result.name = "CI d\xc3\xa9ploiement";
    result.scopes = "read:orders write:orders admin";
    result.cidrs = bytes_of(full_cidrs);
    result.claims = full_claims();
    return result;
}

/// The same in version 1.
token_record first(token_record record) noexcept
{
    record.format = first_format;
    return record;
}

meta_record first(meta_record meta) noexcept
{
    meta.format = meta.record_format = first_format;
    return meta;
}

meta_record full_meta() noexcept
{
    meta_record result{
        .record_format = first_format,
        .scheme = digest_scheme::hmac_sha256,
        .state = store_state::resync,
        .heartbeat = 1700000001,
        .last_sequence = 0x1112131415161718,
        .tokens = 290000000,
        .revoked = 12345,
        .snapshot_sequence = 0x2122232425262728,
        .generation = 0x31,
        .open_generations = 0x32,
        .epoch = "7f9c2ba4-epoch",
        .cursor = "0/16B3748;42",
    };
    static_cast<void>(unhex("f0f1f2f3f4f5f6f7", result.key));
    return result;
}

constexpr tombstone full_tombstone{
    .sequence = 0x4142434445464748, .deleted_at = 1710000002, .generation = 0x51, .revoked = true};

void assert_same_record(const token_record &have, const token_record &want)
{
    assert_number_equal("format", have.format, want.format);
    assert_number_equal("sequence", have.sequence, want.sequence);
    assert_number_equal("issued_at", have.issued_at, want.issued_at);
    assert_number_equal("not_before", have.not_before, want.not_before);
    assert_number_equal("expires_at", have.expires_at, want.expires_at);
    assert_number_equal("revoked_at", have.revoked_at, want.revoked_at);
    assert_number_equal("local_revoked_at", have.local_revoked_at, want.local_revoked_at);
    assert_number_equal("generation", have.generation, want.generation);
    assert_number_equal("denied", have.denied, want.denied);
    assert_view_equal("id", have.id, want.id);
    assert_view_equal("subject", have.subject, want.subject);
    assert_view_equal("name", have.name, want.name);
    assert_view_equal("scopes", have.scopes, want.scopes);
    assert_bytes_equal("ranges", have.cidrs, want.cidrs);
    assert_bytes_equal("claims", have.claims, want.claims);
}

void assert_same_meta(const meta_record &have, const meta_record &want)
{
    assert_number_equal("format", have.format, want.format);
    assert_number_equal("record_format", have.record_format, want.record_format);
    assert_number_equal("scheme", have.scheme, want.scheme);
    assert_bytes_equal("key", have.key, want.key);
    assert_number_equal("state", have.state, want.state);
    assert_number_equal("heartbeat", have.heartbeat, want.heartbeat);
    assert_number_equal("last_sequence", have.last_sequence, want.last_sequence);
    assert_number_equal("tokens", have.tokens, want.tokens);
    assert_number_equal("revoked", have.revoked, want.revoked);
    assert_number_equal("snapshot_sequence", have.snapshot_sequence, want.snapshot_sequence);
    assert_number_equal("generation", have.generation, want.generation);
    assert_number_equal("open_generations", have.open_generations, want.open_generations);
    assert_view_equal("epoch", have.epoch, want.epoch);
    assert_view_equal("cursor", have.cursor, want.cursor);
}

/// Encodes what is known to be right.
std::span<const std::byte> encode_right(const token_record &from)
{
    static record_buffer buffer;
    const encoded result = encode(the_key, from, buffer);
    assert_number_equal("encode", result.error, codec_error::none);
    return result.bytes;
}

std::span<const std::byte> encode_meta_right(const meta_record &from)
{
    static record_buffer buffer;
    const encoded result = encode_meta(from, buffer);
    assert_number_equal("encode_meta", result.error, codec_error::none);
    return result.bytes;
}

const token_key the_tombstone_key = make_tombstone_key(the_digest());

std::span<const std::byte> encode_right(const tombstone &from)
{
    static record_buffer buffer;
    const encoded result = encode(the_tombstone_key, from, buffer);
    assert_number_equal("encode", result.error, codec_error::none);
    return result.bytes;
}

codec_error decoding_tombstone(std::span<const std::byte> value) noexcept
{
    tombstone ignored;
    return decode(the_tombstone_key, value, ignored);
}

const token_key the_early_key = make_early_key(the_digest());

codec_error decoding_early(std::span<const std::byte> value) noexcept
{
    early_revocation ignored;
    return decode(the_early_key, value, ignored);
}

codec_error decoding(std::span<const std::byte> value) noexcept
{
    token_record ignored;
    return decode(the_key, value, ignored);
}

codec_error decoding_meta(std::span<const std::byte> value) noexcept
{
    meta_record ignored;
    return decode_meta(value, ignored);
}

/// A flip in the version may look like a newer one; a flip anywhere else must be the checksum's find.
codec_error error_of_flip(std::size_t bit, unsigned version = 1, unsigned newest = 1) noexcept
{
    return bit / 8 == 4 && (version ^ 1U << bit % 8) > newest ? codec_error::newer_version : codec_error::checksum;
}

// ---- keys

void a_token_key_is_t_and_the_digest(void **)
{
    std::array<std::byte, 33> want;
    assert_bytes_equal("key", the_key,
                       unhex("74000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", want));

    const auto back = digest_of_key(the_key);
    assert_true(back.has_value());
    assert_bytes_equal("digest", *back, the_digest());
}

void a_tombstone_key_is_d_and_the_digest(void **)
{
    std::array<std::byte, 33> want;
    assert_bytes_equal("key", the_tombstone_key,
                       unhex("64000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", want));

    const auto back = digest_of_tombstone_key(the_tombstone_key);
    assert_true(back.has_value());
    assert_bytes_equal("digest", *back, the_digest());
    assert_false(digest_of_tombstone_key(the_key).has_value());
    assert_false(digest_of_key(the_tombstone_key).has_value());
}

void the_meta_key_is_m(void **)
{
    assert_view_equal("meta key", text_of(meta_key()), "m");
}

void only_a_token_key_holds_a_digest(void **)
{
    std::array<std::byte, 40> key;
    key.fill(std::byte{'t'});
    for (std::size_t length = 0; length <= key.size(); length++) {
        assert_number_equal(label_at("length", length), digest_of_key(std::span{key}.first(length)).has_value(),
                            length == 33);
    }
    for (unsigned tag = 0; tag < 256; tag++) {
        key[0] = static_cast<std::byte>(tag);
        assert_number_equal(label_at("tag", tag), digest_of_key(std::span{key}.first(33)).has_value(), tag == 't');
    }
    assert_false(digest_of_key(meta_key()).has_value());
}

// ---- golden bytes

void token_records_are_the_golden_bytes(void **)
{
    struct row {
        const char *path;
        token_record fields;
    };
    const row rows[] = {
        {PAT_GOLDEN_DIR "/token_minimal.hex", minimal_record()},
        {PAT_GOLDEN_DIR "/token_full.hex", full_record()},
        {PAT_GOLDEN_DIR "/token_1_minimal.hex", first(minimal_record())},
        {PAT_GOLDEN_DIR "/token_1_full.hex", first(full_record())},
    };

    static record_buffer file;
    for (const row &row : rows) {
        const auto golden = read_golden(row.path, file);
        assert_bytes_equal(row.path, encode_right(row.fields), golden);

        specimen value{golden};
        token_record have;
        assert_number_equal(row.path, decode(the_key, value.bytes(), have), codec_error::none);
        assert_same_record(have, row.fields);
    }
}

void meta_records_are_the_golden_bytes(void **)
{
    struct row {
        const char *path;
        meta_record fields;
    };
    const row rows[] = {
        {PAT_GOLDEN_DIR "/meta_minimal.hex", meta_record{}},
        {PAT_GOLDEN_DIR "/meta_full.hex", full_meta()},
        {PAT_GOLDEN_DIR "/meta_1_minimal.hex", first(meta_record{})},
        {PAT_GOLDEN_DIR "/meta_1_full.hex", first(full_meta())},
    };

    static record_buffer file;
    for (const row &row : rows) {
        const auto golden = read_golden(row.path, file);
        assert_bytes_equal(row.path, encode_meta_right(row.fields), golden);

        specimen value{golden};
        meta_record have;
        assert_number_equal(row.path, decode_meta(value.bytes(), have), codec_error::none);
        assert_same_meta(have, row.fields);
    }
}

void tombstones_are_the_golden_bytes(void **)
{
    static record_buffer file;
    const auto golden = read_golden(PAT_GOLDEN_DIR "/tombstone.hex", file);
    assert_bytes_equal("tombstone", encode_right(full_tombstone), golden);

    tombstone have;
    assert_int_equal(decode(the_tombstone_key, golden, have), codec_error::none);
    assert_number_equal("sequence", have.sequence, full_tombstone.sequence);
    assert_number_equal("deleted_at", have.deleted_at, full_tombstone.deleted_at);
    assert_number_equal("generation", have.generation, full_tombstone.generation);
    assert_number_equal("revoked", have.revoked, full_tombstone.revoked);
}

void early_revocations_are_the_golden_bytes(void **)
{
    static record_buffer file;
    static record_buffer buffer;
    const auto golden = read_golden(PAT_GOLDEN_DIR "/early_revocation.hex", file);
    const encoded result =
        encode(the_early_key, early_revocation{.local_revoked_at = 1710000003, .denied = true}, buffer);
    assert_number_equal("encode", result.error, codec_error::none);
    assert_bytes_equal("early revocation", result.bytes, golden);

    early_revocation have;
    assert_int_equal(decode(the_early_key, golden, have), codec_error::none);
    assert_number_equal("local_revoked_at", have.local_revoked_at, 1710000003);
    assert_true(have.denied);

    const auto back = digest_of_early_key(the_early_key);
    assert_true(back.has_value());
    assert_bytes_equal("digest", *back, the_digest());
    assert_false(digest_of_early_key(the_key).has_value());
    assert_false(digest_of_key(the_early_key).has_value());
}

void held_snapshots_are_the_golden_bytes(void **)
{
    static record_buffer file;
    static store::held_buffer buffer;
    const store::held_snapshot want{.held_at = 1710000004,
                                    .received = 0x0102030405060708,
                                    .removed = 0x1112131415161718,
                                    .tokens = 0x2122232425262728,
                                    .is_accepted = true,
                                    .is_first = true,
                                    .epoch = "7f9c2ba4-epoch"};
    const auto golden = read_golden(PAT_GOLDEN_DIR "/held_snapshot.hex", file);
    const encoded result = store::encode(want, buffer);
    assert_number_equal("encode", result.error, codec_error::none);
    assert_bytes_equal("held snapshot", result.bytes, golden);

    store::held_snapshot have;
    assert_int_equal(store::decode(golden, have), codec_error::none);
    assert_number_equal("held_at", have.held_at, want.held_at);
    assert_number_equal("received", have.received, want.received);
    assert_number_equal("removed", have.removed, want.removed);
    assert_number_equal("tokens", have.tokens, want.tokens);
    assert_true(have.is_accepted && have.is_first);
    assert_view_equal("epoch", have.epoch, "7f9c2ba4-epoch");

    specimen value{golden};
    for (std::size_t bit = 0; bit < 8 * golden.size(); bit++) {
        value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
        assert_number_equal(label_at("bit", bit), store::decode(value.bytes(), have), error_of_flip(bit));
        value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    for (std::size_t length = 0; length < golden.size(); length++) {
        specimen cut{golden.first(length)};
        assert_true(store::decode(cut.bytes(), have) != codec_error::none);
    }
}

void a_damaged_early_revocation_is_refused(void **)
{
    static record_buffer buffer;
    const encoded whole = encode(the_early_key, early_revocation{.local_revoked_at = 1710000003}, buffer);
    for (std::size_t length = 0; length < whole.bytes.size(); length++) {
        specimen cut{whole.bytes.first(length)};
        assert_number_equal(label_at("length", length), decoding_early(cut.bytes()), codec_error::too_short);
    }

    specimen value{whole.bytes};
    for (std::size_t bit = 0; bit < 8 * whole.bytes.size(); bit++) {
        value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
        assert_number_equal(label_at("bit", bit), decoding_early(value.bytes()), error_of_flip(bit));
        value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
    }

    for (const std::size_t at : {5, 6, 7}) {
        specimen wrong{whole.bytes};
        wrong.set_u8(at, 2);
        wrong.seal(the_early_key);
        assert_number_equal(label_at("byte", at), decoding_early(wrong.bytes()), codec_error::inconsistent);
    }

    static std::array<std::byte, 17> longer;
    std::ranges::copy(whole.bytes, longer.begin());
    specimen too_long{longer};
    too_long.seal(the_early_key);
    assert_number_equal("too long", decoding_early(too_long.bytes()), codec_error::inconsistent);
}

void a_damaged_tombstone_is_refused(void **)
{
    const auto whole = encode_right(full_tombstone);
    for (std::size_t length = 0; length < whole.size(); length++) {
        specimen cut{whole.first(length)};
        assert_number_equal(label_at("length", length), decoding_tombstone(cut.bytes()), codec_error::too_short);
    }

    specimen value{whole};
    for (std::size_t bit = 0; bit < 8 * whole.size(); bit++) {
        value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
        assert_number_equal(label_at("bit", bit), decoding_tombstone(value.bytes()), error_of_flip(bit));
        value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
    }

    for (const std::size_t at : {6, 7}) {
        specimen wrong{whole};
        wrong.set_u8(at, 2);
        wrong.seal(the_tombstone_key);
        assert_number_equal(label_at("byte", at), decoding_tombstone(wrong.bytes()), codec_error::inconsistent);
    }

    static std::array<std::byte, 25> longer;
    std::ranges::copy(whole, longer.begin());
    specimen too_long{longer};
    too_long.seal(the_tombstone_key);
    assert_number_equal("too long", decoding_tombstone(too_long.bytes()), codec_error::inconsistent);
}

void a_tombstone_has_a_time(void **)
{
    static record_buffer buffer;
    assert_int_equal(encode(the_tombstone_key, tombstone{.deleted_at = -1}, buffer).error, codec_error::time);
    assert_int_equal(encode(the_tombstone_key, tombstone{.deleted_at = 253402300800}, buffer).error, codec_error::time);
}

void decoding_leaves_nothing_of_what_was_in_the_record_before(void **)
{
    for (const token_record &from : {minimal_record(), first(minimal_record())}) {
        token_record reused = full_record();
        reused.format = 0;
        specimen value{encode_right(from)};
        assert_int_equal(decode(the_key, value.bytes(), reused), codec_error::none);
        assert_same_record(reused, from);
    }

    for (const meta_record &from : {meta_record{}, first(meta_record{})}) {
        meta_record reused_meta = full_meta();
        reused_meta.format = reused_meta.record_format = 0;
        specimen meta_value{encode_meta_right(from)};
        assert_int_equal(decode_meta(meta_value.bytes(), reused_meta), codec_error::none);
        assert_same_meta(reused_meta, from);
    }
}

void encoding_leaves_nothing_of_what_was_in_the_buffer_before(void **)
{
    static record_buffer buffer;
    static record_buffer file;

    buffer.fill(std::byte{0xee});
    assert_bytes_equal("token", encode(the_key, minimal_record(), buffer).bytes,
                       read_golden(PAT_GOLDEN_DIR "/token_minimal.hex", file));

    buffer.fill(std::byte{0xee});
    assert_bytes_equal("token, version 1", encode(the_key, first(minimal_record()), buffer).bytes,
                       read_golden(PAT_GOLDEN_DIR "/token_1_minimal.hex", file));

    buffer.fill(std::byte{0xee});
    assert_bytes_equal("meta", encode_meta(meta_record{}, buffer).bytes,
                       read_golden(PAT_GOLDEN_DIR "/meta_minimal.hex", file));

    buffer.fill(std::byte{0xee});
    assert_bytes_equal("tombstone", encode(the_tombstone_key, full_tombstone, buffer).bytes,
                       read_golden(PAT_GOLDEN_DIR "/tombstone.hex", file));

    buffer.fill(std::byte{0xee});
    const early_revocation early{.local_revoked_at = 1710000003, .denied = true};
    assert_bytes_equal("early revocation", encode(the_early_key, early, buffer).bytes,
                       read_golden(PAT_GOLDEN_DIR "/early_revocation.hex", file));
}

void the_claims_of_a_record_are_taken_one_after_the_other(void **)
{
    specimen value{encode_right(full_record())};
    token_record have;
    assert_int_equal(decode(the_key, value.bytes(), have), codec_error::none);

    const token_claim first = take_claim(have.claims);
    assert_view_equal("first name", first.name, "tenant");
    assert_view_equal("first value", first.value, "referon");

    const token_claim second = take_claim(have.claims);
    assert_view_equal("second name", second.name, "note");
    assert_view_equal("second value", second.value, xs(258));

    assert_true(have.claims.empty());
}

// ---- damaged records

void every_truncation_of_a_record_is_refused(void **)
{
    for (const token_record &from : {full_record(), minimal_record(), first(full_record())}) {
        const auto whole = encode_right(from);
        const std::size_t least = from.format == first_format ? 64 : 9;
        for (std::size_t length = 0; length < whole.size(); length++) {
            specimen cut{whole.first(length)};
            const char *label = label_at("length", length);

            assert_number_equal(label, decoding(cut.bytes()),
                                length < least ? codec_error::too_short : codec_error::checksum);
            if (length >= least) {
                cut.seal(the_key);
                assert_number_equal(label, decoding(cut.bytes()), codec_error::inconsistent);
            }
        }
    }

    const auto whole_meta = encode_meta_right(full_meta());
    for (std::size_t length = 0; length < whole_meta.size(); length++) {
        specimen cut{whole_meta.first(length)};
        const char *label = label_at("meta, length", length);

        assert_number_equal(label, decoding_meta(cut.bytes()),
                            length < 72 ? codec_error::too_short : codec_error::checksum);
        if (length >= 72) {
            cut.seal(meta_key());
            assert_number_equal(label, decoding_meta(cut.bytes()), codec_error::inconsistent);
        }
    }
}

void every_extension_of_a_record_is_refused(void **)
{
    static std::array<std::byte, max_record_length> longer;

    const auto whole_meta = encode_meta_right(full_meta());

    for (unsigned byte = 0; byte < 256; byte++) {
        for (const token_record &from : {full_record(), first(full_record())}) {
            const auto whole = encode_right(from);
            std::ranges::copy(whole, longer.begin());
            longer[whole.size()] = static_cast<std::byte>(byte);
            specimen value{std::span{longer}.first(whole.size() + 1)};
            assert_number_equal(label_at("byte", byte), decoding(value.bytes()), codec_error::checksum);
            value.seal(the_key);
            assert_number_equal(label_at("sealed, byte", byte), decoding(value.bytes()), codec_error::inconsistent);
        }

        std::ranges::copy(whole_meta, longer.begin());
        longer[whole_meta.size()] = static_cast<std::byte>(byte);
        specimen meta_value{std::span{longer}.first(whole_meta.size() + 1)};
        assert_number_equal(label_at("meta, byte", byte), decoding_meta(meta_value.bytes()), codec_error::checksum);
        meta_value.seal(meta_key());
        assert_number_equal(label_at("meta, sealed, byte", byte), decoding_meta(meta_value.bytes()),
                            codec_error::inconsistent);
    }
}

void every_flipped_bit_of_a_value_is_refused(void **)
{
    for (const token_record &from : {minimal_record(), full_record(), first(minimal_record()), first(full_record())}) {
        specimen value{encode_right(from)};
        for (std::size_t bit = 0; bit < 8 * value.bytes().size(); bit++) {
            value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
            assert_number_equal(label_at("bit", bit), decoding(value.bytes()),
                                error_of_flip(bit, from.format, newest_format));
            value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
        }
        assert_number_equal("as before", decoding(value.bytes()), codec_error::none);
    }

    specimen value{encode_meta_right(full_meta())};
    for (std::size_t bit = 0; bit < 8 * value.bytes().size(); bit++) {
        value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
        assert_number_equal(label_at("meta, bit", bit), decoding_meta(value.bytes()),
                            error_of_flip(bit, newest_format, newest_format));
        value.bytes()[bit / 8] ^= std::byte{1} << (bit % 8);
    }
}

void every_flipped_bit_of_a_key_is_refused(void **)
{
    specimen value{encode_right(full_record())};
    token_key key = the_key;
    token_record ignored;

    for (std::size_t bit = 0; bit < 8 * key.size(); bit++) {
        key[bit / 8] ^= std::byte{1} << (bit % 8);
        assert_number_equal(label_at("bit", bit), decode(key, value.bytes(), ignored), codec_error::checksum);
        key[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    assert_number_equal("as before", decode(key, value.bytes(), ignored), codec_error::none);
}

void a_record_of_one_kind_is_not_one_of_the_other(void **)
{
    specimen token{encode_right(full_record())};
    specimen the_meta{encode_meta_right(full_meta())};

    assert_number_equal("token as meta", decoding_meta(token.bytes()), codec_error::checksum);
    assert_number_equal("meta as token", decoding(the_meta.bytes()), codec_error::checksum);

    token.seal(meta_key());
    assert_number_equal("token as meta, sealed", decoding_meta(token.bytes()), codec_error::inconsistent);
}

void a_newer_version_is_told_from_damage(void **)
{
    for (unsigned version = 0; version < 256; version++) {
        for (const unsigned own : {1U, 2U}) {
            const codec_error unsealed = version == own            ? codec_error::none
                                         : version > newest_format ? codec_error::newer_version
                                                                   : codec_error::checksum;
            const codec_error sealed = unsealed == codec_error::checksum ? codec_error::inconsistent : unsealed;

            specimen value{encode_right(own == 1 ? first(full_record()) : full_record())};
            value.set_u8(4, version);
            assert_number_equal(label_at("version", version), decoding(value.bytes()), unsealed);
            value.seal(the_key);
            assert_number_equal(label_at("sealed, version", version), decoding(value.bytes()), sealed);

            specimen the_meta{encode_meta_right(own == 1 ? first(full_meta()) : full_meta())};
            the_meta.set_u8(4, version);
            assert_number_equal(label_at("meta, version", version), decoding_meta(the_meta.bytes()), unsealed);
            the_meta.seal(meta_key());
            assert_number_equal(label_at("meta, sealed, version", version), decoding_meta(the_meta.bytes()), sealed);
        }
    }
}

void a_newer_version_may_be_longer_than_ours(void **)
{
    static std::array<std::byte, max_record_length + 64> bytes{};
    specimen value{bytes};

    value.set_u8(4, newest_format + 1);
    assert_number_equal("token", decoding(value.bytes()), codec_error::newer_version);
    assert_number_equal("meta", decoding_meta(value.bytes()), codec_error::newer_version);
}

// ---- records that contradict themselves

// Offsets of the header, and of the full record, of version 1.
namespace at_1 {
constexpr std::size_t flags = 5;
constexpr std::size_t id_length = 6;
constexpr std::size_t subject_length = 7;
constexpr std::size_t name_length = 8;
constexpr std::size_t scopes_length = 10;
constexpr std::size_t cidrs_length = 12;
constexpr std::size_t claims_length = 14;
constexpr std::size_t cidrs = 64 + 16 + 7 + 15 + 30;
constexpr std::size_t claims = cidrs + 24;
}  // namespace at_1

// And of version 2.
namespace at_2 {
constexpr std::size_t id_length = 5;
constexpr std::size_t flags = 6;
constexpr std::size_t subject_length = 8;
constexpr std::size_t generation = 9;
constexpr std::size_t name_length = 43;
constexpr std::size_t scopes_length = 44;
constexpr std::size_t cidrs_length = 46;
constexpr std::size_t claims_length = 48;
constexpr std::size_t cidrs = 50 + 16 + 7 + 15 + 30;
constexpr std::size_t claims = cidrs + 24;
}  // namespace at_2

struct change {
    std::size_t at;
    unsigned value;
};

/// Bytes of a record that are changed, so that it contradicts itself.
struct contradiction {
    const char *label;
    std::array<change, 3> bytes;
    std::size_t count;
};

void assert_contradictions(const token_record &from, std::span<const contradiction> rows)
{
    specimen untouched{encode_right(from)};
    untouched.seal(the_key);
    assert_number_equal("untouched", decoding(untouched.bytes()), codec_error::none);

    for (const contradiction &row : rows) {
        specimen value{encode_right(from)};
        for (const change &change : std::span{row.bytes}.first(row.count)) {
            value.set_u8(change.at, change.value);
        }
        value.seal(the_key);
        assert_number_equal(row.label, decoding(value.bytes()), codec_error::inconsistent);
    }
}

void a_token_record_that_contradicts_itself_is_refused(void **)
{
    // The full record has lengths of 16, 7, 15, 0x1e, 0x18 and 0x119.
    static constexpr contradiction rows[] = {
        {"id one longer", {{{at_2::id_length, 17}}}, 1},
        {"id one shorter", {{{at_2::id_length, 15}}}, 1},
        {"id without end", {{{at_2::id_length, 255}}}, 1},
        {"subject one longer", {{{at_2::subject_length, 8}}}, 1},
        {"subject one shorter", {{{at_2::subject_length, 6}}}, 1},
        {"name one longer", {{{at_2::name_length, 16}}}, 1},
        {"name one shorter", {{{at_2::name_length, 14}}}, 1},
        {"name without end", {{{at_2::name_length, 255}}}, 1},
        {"scopes one longer", {{{at_2::scopes_length, 0x1f}}}, 1},
        {"scopes one shorter", {{{at_2::scopes_length, 0x1d}}}, 1},
        {"scopes 256 longer", {{{at_2::scopes_length + 1, 1}}}, 1},
        {"scopes without end", {{{at_2::scopes_length, 0xff}, {at_2::scopes_length + 1, 0xff}}}, 2},
        {"ranges one longer", {{{at_2::cidrs_length, 0x19}}}, 1},
        {"ranges one shorter", {{{at_2::cidrs_length, 0x17}}}, 1},
        {"ranges 256 longer", {{{at_2::cidrs_length + 1, 1}}}, 1},
        {"claims one longer", {{{at_2::claims_length, 0x1a}}}, 1},
        {"claims one shorter", {{{at_2::claims_length, 0x18}}}, 1},
        {"claims 256 shorter", {{{at_2::claims_length + 1, 0}}}, 1},
        {"no claims", {{{at_2::claims_length, 0}, {at_2::claims_length + 1, 0}}}, 2},

        {"no id, its bytes given to the subject", {{{at_2::id_length, 0}, {at_2::subject_length, 23}}}, 2},
        {"no subject, its bytes given to the id", {{{at_2::subject_length, 0}, {at_2::id_length, 23}}}, 2},
        {"ranges take a byte of the claims", {{{at_2::cidrs_length, 0x19}, {at_2::claims_length, 0x18}}}, 2},
        {"ranges take a byte of the scopes", {{{at_2::cidrs_length, 0x19}, {at_2::scopes_length, 0x1d}}}, 2},
        {"ranges give a byte to the claims", {{{at_2::cidrs_length, 0x17}, {at_2::claims_length, 0x1a}}}, 2},
        {"ranges of two bytes", {{{at_2::cidrs_length, 2}, {at_2::scopes_length, 0x1e + 22}}}, 2},

        {"range of family 0", {{{at_2::cidrs, 0}}}, 1},
        {"range of family 5", {{{at_2::cidrs, 5}}}, 1},
        {"v4 range called v6", {{{at_2::cidrs, 6}}}, 1},
        {"v6 range called v4", {{{at_2::cidrs + 6, 4}}}, 1},
        {"v4 /33", {{{at_2::cidrs + 1, 33}}}, 1},
        {"v6 /129", {{{at_2::cidrs + 7, 129}}}, 1},

        {"first claim's name one longer", {{{at_2::claims, 7}}}, 1},
        {"first claim's value one longer", {{{at_2::claims + 1, 8}}}, 1},
        {"first claim's value 256 longer", {{{at_2::claims + 2, 1}}}, 1},
        {"second claim's name one longer", {{{at_2::claims + 16, 5}}}, 1},
        {"second claim's value one longer", {{{at_2::claims + 17, 3}}}, 1},
        {"second claim's value 256 shorter", {{{at_2::claims + 18, 0}}}, 1},

        {"no flag", {{{at_2::flags, 0}, {at_2::flags + 1, 0}}}, 2},
        {"no generation", {{{at_2::flags, 0xfd}}}, 1},
        {"no lower half of the sequence", {{{at_2::flags, 0xfb}}}, 1},
        {"no upper half of the sequence", {{{at_2::flags, 0xf7}}}, 1},
        {"no issued_at", {{{at_2::flags, 0xef}}}, 1},
        {"no not_before", {{{at_2::flags, 0xdf}}}, 1},
        {"no expires_at", {{{at_2::flags, 0xbf}}}, 1},
        {"no revoked_at", {{{at_2::flags, 0x7f}}}, 1},
        {"no local_revoked_at", {{{at_2::flags + 1, 0x1e}}}, 1},
        {"no name length", {{{at_2::flags + 1, 0x1d}}}, 1},
        {"no scopes length", {{{at_2::flags + 1, 0x1b}}}, 1},
        {"no cidrs length", {{{at_2::flags + 1, 0x17}}}, 1},
        {"no claims length", {{{at_2::flags + 1, 0x0f}}}, 1},
        {"flag 13", {{{at_2::flags + 1, 0x3f}}}, 1},
        {"flag 14", {{{at_2::flags + 1, 0x5f}}}, 1},
        {"flag 15", {{{at_2::flags + 1, 0x9f}}}, 1},
        {"all flags", {{{at_2::flags + 1, 0xff}}}, 1},

        {"generation 0", {{{at_2::generation, 0}}}, 1},
        {"name of 0, its bytes given to the scopes", {{{at_2::name_length, 0}, {at_2::scopes_length, 0x1e + 15}}}, 2},
    };
    assert_contradictions(full_record(), rows);
}

void a_token_record_of_version_1_that_contradicts_itself_is_refused(void **)
{
    static constexpr contradiction rows[] = {
        {"id one longer", {{{at_1::id_length, 17}}}, 1},
        {"id one shorter", {{{at_1::id_length, 15}}}, 1},
        {"id without end", {{{at_1::id_length, 255}}}, 1},
        {"subject one longer", {{{at_1::subject_length, 8}}}, 1},
        {"subject one shorter", {{{at_1::subject_length, 6}}}, 1},
        {"name one longer", {{{at_1::name_length, 16}}}, 1},
        {"name one shorter", {{{at_1::name_length, 14}}}, 1},
        {"name without end", {{{at_1::name_length, 255}}}, 1},
        {"scopes one longer", {{{at_1::scopes_length, 0x1f}}}, 1},
        {"scopes one shorter", {{{at_1::scopes_length, 0x1d}}}, 1},
        {"scopes 256 longer", {{{at_1::scopes_length + 1, 1}}}, 1},
        {"scopes without end", {{{at_1::scopes_length, 0xff}, {at_1::scopes_length + 1, 0xff}}}, 2},
        {"ranges one longer", {{{at_1::cidrs_length, 0x19}}}, 1},
        {"ranges one shorter", {{{at_1::cidrs_length, 0x17}}}, 1},
        {"ranges 256 longer", {{{at_1::cidrs_length + 1, 1}}}, 1},
        {"claims one longer", {{{at_1::claims_length, 0x1a}}}, 1},
        {"claims one shorter", {{{at_1::claims_length, 0x18}}}, 1},
        {"claims 256 shorter", {{{at_1::claims_length + 1, 0}}}, 1},
        {"no claims", {{{at_1::claims_length, 0}, {at_1::claims_length + 1, 0}}}, 2},

        {"no id, its bytes given to the subject", {{{at_1::id_length, 0}, {at_1::subject_length, 23}}}, 2},
        {"no subject, its bytes given to the id", {{{at_1::subject_length, 0}, {at_1::id_length, 23}}}, 2},
        {"ranges take a byte of the claims", {{{at_1::cidrs_length, 0x19}, {at_1::claims_length, 0x18}}}, 2},
        {"ranges take a byte of the scopes", {{{at_1::cidrs_length, 0x19}, {at_1::scopes_length, 0x1d}}}, 2},
        {"ranges give a byte to the claims", {{{at_1::cidrs_length, 0x17}, {at_1::claims_length, 0x1a}}}, 2},
        {"ranges of two bytes", {{{at_1::cidrs_length, 2}, {at_1::scopes_length, 0x1e + 22}}}, 2},

        {"range of family 0", {{{at_1::cidrs, 0}}}, 1},
        {"range of family 5", {{{at_1::cidrs, 5}}}, 1},
        {"v4 range called v6", {{{at_1::cidrs, 6}}}, 1},
        {"v6 range called v4", {{{at_1::cidrs + 6, 4}}}, 1},
        {"v4 /33", {{{at_1::cidrs + 1, 33}}}, 1},
        {"v6 /129", {{{at_1::cidrs + 7, 129}}}, 1},

        {"first claim's name one longer", {{{at_1::claims, 7}}}, 1},
        {"first claim's value one longer", {{{at_1::claims + 1, 8}}}, 1},
        {"first claim's value 256 longer", {{{at_1::claims + 2, 1}}}, 1},
        {"second claim's name one longer", {{{at_1::claims + 16, 5}}}, 1},
        {"second claim's value one longer", {{{at_1::claims + 17, 3}}}, 1},
        {"second claim's value 256 shorter", {{{at_1::claims + 18, 0}}}, 1},

        {"flag 1", {{{at_1::flags, 0x02}}}, 1},
        {"flag 2", {{{at_1::flags, 0x04}}}, 1},
        {"flag 3", {{{at_1::flags, 0x08}}}, 1},
        {"flag 4", {{{at_1::flags, 0x10}}}, 1},
        {"flag 5", {{{at_1::flags, 0x20}}}, 1},
        {"flag 6", {{{at_1::flags, 0x40}}}, 1},
        {"flag 7", {{{at_1::flags, 0x80}}}, 1},
        {"all flags", {{{at_1::flags, 0xff}}}, 1},
    };
    assert_contradictions(first(full_record()), rows);
}

/// The numbers of a record, each of which is left out where it is 0.
struct numbered_field {
    const char *label;
    unsigned flag;
    std::size_t length;
    void (*set)(token_record &, std::uint64_t) noexcept;
};

constexpr numbered_field numbered_fields[] = {
    {"generation", 1 << 1, 1, [](token_record &r, std::uint64_t v) noexcept { r.generation = v & 0xff; }},
    {"sequence, lower half", 1 << 2, 4, [](token_record &r, std::uint64_t v) noexcept { r.sequence = v; }},
    {"sequence, upper half", 1 << 3, 4, [](token_record &r, std::uint64_t v) noexcept { r.sequence = v << 32; }},
    {"issued_at", 1 << 4, 5,
     [](token_record &r, std::uint64_t v) noexcept { r.issued_at = static_cast<std::int64_t>(v); }},
    {"not_before", 1 << 5, 5,
     [](token_record &r, std::uint64_t v) noexcept { r.not_before = static_cast<std::int64_t>(v); }},
    {"expires_at", 1 << 6, 5,
     [](token_record &r, std::uint64_t v) noexcept { r.expires_at = static_cast<std::int64_t>(v); }},
    {"revoked_at", 1 << 7, 5,
     [](token_record &r, std::uint64_t v) noexcept { r.revoked_at = static_cast<std::int64_t>(v); }},
    {"local_revoked_at", 1 << 8, 5,
     [](token_record &r, std::uint64_t v) noexcept { r.local_revoked_at = static_cast<std::int64_t>(v); }},
};

void a_field_takes_no_room_where_it_is_absent(void **)
{
    for (const numbered_field &field : numbered_fields) {
        for (const std::uint64_t number : {std::uint64_t{1}, std::uint64_t{0x80}, std::uint64_t{0xff}}) {
            token_record from = minimal_record();
            field.set(from, number);
            specimen value{encode_right(from)};
            assert_number_equal(field.label, value.bytes().size(), 9 + field.length + 2);
            assert_number_equal(field.label, value.u16(6), field.flag);
            assert_number_equal(field.label, value.bytes()[9], number);

            token_record back;
            assert_number_equal(field.label, decode(the_key, value.bytes(), back), codec_error::none);
            assert_same_record(back, from);
        }

        // A second encoding of the same record is none.
        token_record from = minimal_record();
        field.set(from, 1);
        specimen zero{encode_right(from)};
        zero.set_u8(9, 0);
        zero.seal(the_key);
        assert_number_equal(field.label, decoding(zero.bytes()), codec_error::inconsistent);
    }
}

void every_set_of_fields_comes_back_and_is_encoded_as_it_was(void **)
{
    for (unsigned flags = 0; flags < 1 << 13; flags++) {
        const token_record full = full_record();
        token_record from = minimal_record();
        const auto has = [&](unsigned bit) { return (flags >> bit & 1) != 0; };
        from.denied = has(0);
        from.generation = has(1) ? full.generation : 0;
        from.sequence = (has(2) ? full.sequence & 0xffffffff : 0) | (has(3) ? full.sequence >> 32 << 32 : 0);
        from.issued_at = has(4) ? full.issued_at : 0;
        from.not_before = has(5) ? full.not_before : 0;
        from.expires_at = has(6) ? full.expires_at : 0;
        from.revoked_at = has(7) ? full.revoked_at : 0;
        from.local_revoked_at = has(8) ? full.local_revoked_at : 0;
        from.name = has(9) ? full.name : "";
        from.scopes = has(10) ? full.scopes : "";
        from.cidrs = has(11) ? full.cidrs : std::span<const std::byte>{};
        from.claims = has(12) ? full.claims : std::span<const std::byte>{};

        specimen value{encode_right(from)};
        assert_number_equal("flags", value.u16(6), flags);

        token_record back;
        assert_number_equal(label_at("flags", flags), decode(the_key, value.bytes(), back), codec_error::none);
        assert_same_record(back, from);
        assert_bytes_equal(label_at("flags", flags), encode_right(back), value.bytes());
    }
}

void no_change_of_the_header_gives_a_record_of_another_encoding(void **)
{
    constexpr std::size_t header = 50;
    for (std::size_t at = 5; at < header; at++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            specimen value{encode_right(full_record())};
            value.set_u8(at, byte);
            value.seal(the_key);
            token_record back;
            if (decode(the_key, value.bytes(), back) == codec_error::none) {
                assert_bytes_equal(label_at("byte", at), encode_right(back), value.bytes());
            }
        }
    }
}

void a_flag_that_is_not_known_is_refused_whatever_follows(void **)
{
    static std::array<std::byte, 11 + 8> bytes;
    for (unsigned bit = 13; bit < 16; bit++) {
        for (std::size_t length = 0; length <= 8; length++) {
            bytes.fill(std::byte{1});
            specimen value{std::span{bytes}.first(11 + length)};
            value.set_u8(4, 2);
            value.set_u16(6, 1U << bit);
            value.seal(the_key);
            assert_number_equal(label_at("bit", bit), decoding(value.bytes()), codec_error::inconsistent);
        }
    }
}

void a_time_past_the_year_9999_is_refused(void **)
{
    for (const numbered_field &field : numbered_fields) {
        if (field.length != 5) {
            continue;
        }
        token_record from = minimal_record();
        field.set(from, static_cast<std::uint64_t>(year_9999));
        specimen last{encode_right(from)};
        assert_number_equal(field.label, decoding(last.bytes()), codec_error::none);

        // 253402300799 is 3afff4417f.
        for (const auto &[at, byte] : {change{9, 0x80}, change{12, 0x00}, change{13, 0xff}, change{13, 0x3b}}) {
            specimen value{encode_right(from)};
            value.set_u8(at, byte);
            value.seal(the_key);
            const bool is_earlier = at == 12;
            assert_number_equal(field.label, decoding(value.bytes()),
                                is_earlier ? codec_error::none : codec_error::inconsistent);
        }
    }
}

void the_id_of_a_token_record_has_at_most_64_bytes(void **)
{
    token_record from = minimal_record();
    from.id = xs(64);
    from.subject = xs(10);

    specimen longest{encode_right(from)};
    assert_number_equal("64", decoding(longest.bytes()), codec_error::none);

    specimen longer{encode_right(from)};
    longer.set_u8(at_2::id_length, 65);
    longer.set_u8(at_2::subject_length, 9);
    longer.seal(the_key);
    assert_number_equal("65, whose last byte was the subject's", decoding(longer.bytes()), codec_error::inconsistent);

    specimen longer_1{encode_right(first(from))};
    longer_1.set_u8(at_1::id_length, 65);
    longer_1.set_u8(at_1::subject_length, 9);
    longer_1.seal(the_key);
    assert_number_equal("version 1", decoding(longer_1.bytes()), codec_error::inconsistent);
}

void a_meta_record_that_contradicts_itself_is_refused(void **)
{
    struct row {
        const char *label;
        std::array<change, 2> bytes;
        std::size_t count;
    };
    // The full record has lengths of 14 and 12.
    static constexpr row rows[] = {
        {"scheme 0", {{{5, 0}}}, 1},
        {"scheme 3", {{{5, 3}}}, 1},
        {"scheme 255", {{{5, 255}}}, 1},
        {"state 0", {{{6, 0}}}, 1},
        {"state 4", {{{6, 4}}}, 1},
        {"state 255", {{{6, 255}}}, 1},
        {"magic, first byte", {{{8, 'A'}}}, 1},
        {"magic, second byte", {{{9, 'U'}}}, 1},
        {"magic, third byte", {{{10, 'T'}}}, 1},
        {"magic, fourth byte", {{{11, 'H'}}}, 1},
        {"magic, fifth byte", {{{12, '-'}}}, 1},
        {"magic, sixth byte", {{{13, 'P'}}}, 1},
        {"magic, seventh byte", {{{14, 'A'}}}, 1},
        {"magic, last byte", {{{15, 'T'}}}, 1},
        {"epoch one longer", {{{64, 15}}}, 1},
        {"epoch one shorter", {{{64, 13}}}, 1},
        {"epoch 256 longer", {{{65, 1}}}, 1},
        {"cursor one longer", {{{66, 13}}}, 1},
        {"cursor one shorter", {{{66, 11}}}, 1},
        {"cursor 256 longer", {{{67, 1}}}, 1},
        {"no epoch and no cursor", {{{64, 0}, {66, 0}}}, 2},
        {"record format 0", {{{69, 0}}}, 1},
        {"record format 3", {{{69, 3}}}, 1},
        {"zero, first byte", {{{70, 1}}}, 1},
        {"zero, last byte", {{{71, 0x80}}}, 1},
        {"record format 1 in format 1", {{{4, 1}, {69, 1}}}, 2},
        {"record format 2 in format 1", {{{4, 1}, {69, 2}}}, 2},
    };

    specimen untouched{encode_meta_right(full_meta())};
    untouched.seal(meta_key());
    assert_number_equal("untouched", decoding_meta(untouched.bytes()), codec_error::none);

    for (const row &row : rows) {
        specimen value{encode_meta_right(full_meta())};
        for (const change &change : std::span{row.bytes}.first(row.count)) {
            value.set_u8(change.at, change.value);
        }
        value.seal(meta_key());
        assert_number_equal(row.label, decoding_meta(value.bytes()), codec_error::inconsistent);
    }
}

void the_epoch_and_the_cursor_are_bounded(void **)
{
    struct row {
        const char *label;
        std::size_t epoch;
        std::size_t cursor;
        codec_error error;
    };
    static constexpr row rows[] = {
        {"empty", 0, 0, codec_error::none},
        {"longest", 64, 256, codec_error::none},
        {"only an epoch", 64, 0, codec_error::none},
        {"only a cursor", 0, 256, codec_error::none},
        {"epoch too long", 65, 0, codec_error::epoch},
        {"epoch much too long", 65536, 0, codec_error::epoch},
        {"cursor too long", 0, 257, codec_error::cursor},
        {"cursor much too long", 0, 65536, codec_error::cursor},
    };

    static record_buffer buffer;
    for (const row &row : rows) {
        meta_record from;
        from.epoch = xs(row.epoch);
        from.cursor = xs(row.cursor);

        const encoded have = encode_meta(from, buffer);
        assert_number_equal(row.label, have.error, row.error);
        assert_number_equal(row.label, have.bytes.size(),
                            row.error == codec_error::none ? 72 + row.epoch + row.cursor : 0);
        if (row.error == codec_error::none) {
            specimen value{have.bytes};
            meta_record back;
            assert_number_equal(row.label, decode_meta(value.bytes(), back), codec_error::none);
            assert_same_meta(back, from);
        }
    }

    meta_record from;
    from.epoch = xs(64);
    from.cursor = xs(256);

    specimen epoch{encode_meta_right(from)};
    epoch.set_u16(64, 65);
    epoch.set_u16(66, 255);
    epoch.seal(meta_key());
    assert_number_equal("decoding an epoch of 65", decoding_meta(epoch.bytes()), codec_error::inconsistent);

    specimen cursor{encode_meta_right(from)};
    cursor.set_u16(64, 63);
    cursor.set_u16(66, 257);
    cursor.seal(meta_key());
    assert_number_equal("decoding a cursor of 257", decoding_meta(cursor.bytes()), codec_error::inconsistent);
}

void the_heartbeat_is_a_time(void **)
{
    struct row {
        const char *label;
        std::int64_t heartbeat;
        codec_error error;
    };
    static constexpr row rows[] = {
        {"none", 0, codec_error::none},
        {"end of year 9999", year_9999, codec_error::none},
        {"later", year_9999 + 1, codec_error::time},
        {"negative", -1, codec_error::time},
        {"as low as can be", INT64_MIN, codec_error::time},
    };

    static record_buffer buffer;
    for (const row &row : rows) {
        meta_record from;
        from.heartbeat = row.heartbeat;
        assert_number_equal(row.label, encode_meta(from, buffer).error, row.error);
    }
}

void a_time_that_no_record_may_have_is_not_read(void **)
{
    struct row {
        const char *label;
        std::span<const std::byte> key;
        std::span<const std::byte> whole;
        std::size_t at;
        codec_error (*decoding)(std::span<const std::byte> value) noexcept;
    };

    static record_buffer early_buffer;
    static store::held_buffer held_buffer;
    const row rows[] = {
        {"heartbeat", meta_key(), encode_meta_right({}), 24, decoding_meta},
        {"deleted_at", the_tombstone_key, encode_right(full_tombstone), 16, decoding_tombstone},
        {"local_revoked_at", the_early_key,
         encode(the_early_key, early_revocation{.local_revoked_at = 1}, early_buffer).bytes, 8, decoding_early},
        {"held_at", store::held_key(), store::encode(store::held_snapshot{}, held_buffer).bytes, 8,
         [](std::span<const std::byte> value) noexcept {
             store::held_snapshot ignored;
             return store::decode(value, ignored);
         }},
    };
    for (const row &row : rows) {
        specimen value{row.whole};
        assert_number_equal(row.label, row.decoding(value.bytes()), codec_error::none);
        for (const std::int64_t time : {std::int64_t{-1}, std::int64_t{INT64_MIN}, year_9999 + 1}) {
            store_le(&value.bytes()[row.at], time);
            value.seal(row.key);
            assert_number_equal(row.label, row.decoding(value.bytes()), codec_error::inconsistent);
        }
    }
}

void the_numbers_of_the_states_stand_in_the_store(void **)
{
    assert_number_equal("empty", store_state::empty, 1);
    assert_number_equal("ready", store_state::ready, 2);
    assert_number_equal("resync", store_state::resync, 3);

    for (const store_state state : {store_state::empty, store_state::ready, store_state::resync}) {
        meta_record from;
        from.state = state;
        specimen value{encode_meta_right(from)};
        meta_record have;
        assert_int_equal(decode_meta(value.bytes(), have), codec_error::none);
        assert_number_equal("state", have.state, state);
    }
}

void every_state_has_its_name(void **)
{
    assert_view_equal("empty", name(store_state::empty), "empty");
    assert_view_equal("ready", name(store_state::ready), "ready");
    assert_view_equal("resync", name(store_state::resync), "resync");
    assert_view_equal("no state", name(static_cast<store_state>(0)), "unknown");
}

void a_store_has_a_source_that_has_sent_an_epoch_or_a_sequence(void **)
{
    meta_record meta;
    assert_false(meta.has_source());
    meta.epoch = "e";
    assert_true(meta.has_source());
    meta.last_sequence = 1;
    assert_true(meta.has_source());
    meta.epoch = "";
    assert_true(meta.has_source());
}

void a_store_is_made_with_one_pepper(void **)
{
    pepper one{{}, 32};
    pepper other{{}, 32};
    other.bytes[0] = std::byte{1};

    const token_hasher plain;
    const token_hasher keyed{one};
    const token_hasher other_keyed{other};

    meta_record of_plain;
    meta_record of_keyed;
    of_keyed.scheme = digest_scheme::hmac_sha256;
    of_keyed.key = keyed.key();
    meta_record plain_with_key = of_keyed;
    plain_with_key.scheme = digest_scheme::sha256;
    meta_record keyed_without_key = of_keyed;
    keyed_without_key.key = {};

    assert_true(of_plain.made_with(plain));
    assert_false(of_plain.made_with(keyed));
    assert_true(of_keyed.made_with(keyed));
    assert_false(of_keyed.made_with(plain));
    assert_false(of_keyed.made_with(other_keyed));
    assert_false(plain_with_key.made_with(keyed));
    assert_false(plain_with_key.made_with(plain));
    assert_false(keyed_without_key.made_with(keyed));
    assert_false(keyed_without_key.made_with(plain));
}

// ---- sizes

void a_record_has_at_most_4096_bytes(void **)
{
    // 64 of header, 2 of id and subject, 4 of the claim's header and name. Version 2 takes no more than could be
    // written in version 1.
    constexpr std::size_t fitting = 4096 - 64 - 2 - 4;

    static claim_bytes claims;
    static record_buffer buffer;
    assert_true(append_claim({"n", xs(fitting)}, claims.buffer, claims.length));

    for (token_record from : {minimal_record(), first(minimal_record())}) {
        from.claims = claims.view();

        const encoded fits = encode(the_key, from, buffer);
        assert_number_equal("4096", fits.error, codec_error::none);
        assert_number_equal("4096", fits.bytes.size(), 4032 + (from.format == first_format ? 64 : 11));

        specimen value{fits.bytes};
        token_record have;
        assert_number_equal("4096, back", decode(the_key, value.bytes(), have), codec_error::none);
        assert_same_record(have, from);

        from.name = "x";
        const encoded too_long = encode(the_key, from, buffer);
        assert_number_equal("4097", too_long.error, codec_error::too_long);
        assert_number_equal("4097", too_long.bytes.size(), 0);
    }
}

void a_longer_record_is_refused_when_it_is_read(void **)
{
    static std::array<std::byte, max_record_length + 1> bytes{};
    std::fill(bytes.begin() + 64, bytes.end(), std::byte{'x'});

    for (const std::size_t length : {max_record_length, max_record_length + 1}) {
        specimen value{std::span{bytes}.first(length)};
        value.set_u8(4, 1);
        value.set_u8(at_1::id_length, 1);
        value.set_u8(at_1::subject_length, 1);
        value.set_u16(at_1::scopes_length, static_cast<unsigned>(length - 64 - 2));
        value.seal(the_key);
        assert_number_equal(label_at("length", length), decoding(value.bytes()),
                            length == max_record_length ? codec_error::none : codec_error::too_long);
    }

    // In version 2 it is the texts that must not be longer.
    for (const std::size_t length : {max_texts_length, max_texts_length + 1}) {
        static std::array<std::byte, max_record_length> texts{};
        texts.fill(std::byte{'x'});
        specimen value{std::span{texts}.first(9 + 2 + length)};
        value.set_u8(4, 2);
        value.set_u8(5, 1);
        value.set_u16(6, 1 << 10);
        value.set_u8(8, 1);
        value.set_u16(9, static_cast<unsigned>(length - 2));
        value.seal(the_key);
        assert_number_equal(label_at("texts of", length), decoding(value.bytes()),
                            length == max_texts_length ? codec_error::none : codec_error::inconsistent);
    }
}

void lengths_past_16_bits_are_not_cut_to_16_bits(void **)
{
    static record_buffer buffer;

    for (const std::size_t length : {std::size_t{4031}, std::size_t{65535}, std::size_t{65536}, std::size_t{65546}}) {
        token_record from = minimal_record();
        from.scopes = xs(length);
        const encoded have = encode(the_key, from, buffer);
        assert_number_equal(label_at("scopes of", length), have.error, codec_error::too_long);
        assert_number_equal(label_at("scopes of", length), have.bytes.size(), 0);
    }
}

void nothing_is_encoded_that_is_not_valid(void **)
{
    static record_buffer buffer;

    token_record from = full_record();
    from.scopes = "a  b";
    const encoded have = encode(the_key, from, buffer);
    assert_number_equal("error", have.error, codec_error::scopes);
    assert_number_equal("bytes", have.bytes.size(), 0);
}

// ---- rules for values

void a_record_is_valid_by_the_rules_of_its_values(void **)
{
    constexpr codec_error none = codec_error::none;

    struct row {
        const char *label;
        void (*change)(token_record &) noexcept;
        codec_error error;
    };
    static constexpr row rows[] = {
        {"full record", [](token_record &) noexcept {}, none},
        {"empty record", [](token_record &r) noexcept { r = token_record{}; }, codec_error::id},
        {"minimal record", [](token_record &r) noexcept { r = minimal_record(); }, none},

        {"id of one character", [](token_record &r) noexcept { r.id = "0"; }, none},
        {"id of 64", [](token_record &r) noexcept { r.id = xs(64); }, none},
        {"id of every kind of character", [](token_record &r) noexcept { r.id = "azAZ09._:@-"; }, none},
        {"empty id", [](token_record &r) noexcept { r.id = ""; }, codec_error::id},
        {"id of 65", [](token_record &r) noexcept { r.id = xs(65); }, codec_error::id},
        {"id of 257", [](token_record &r) noexcept { r.id = xs(257); }, codec_error::id},
        {"space in the id", [](token_record &r) noexcept { r.id = "a b"; }, codec_error::id},
        {"line end in the id", [](token_record &r) noexcept { r.id = "a\n"; }, codec_error::id},
        {"zero in the id", [](token_record &r) noexcept { r.id = "a\0b"sv; }, codec_error::id},
        {"quote in the id", [](token_record &r) noexcept { r.id = "a\"b"; }, codec_error::id},
        {"slash in the id", [](token_record &r) noexcept { r.id = "a/b"; }, codec_error::id},
        {"non-ASCII id", [](token_record &r) noexcept { r.id = "\xc3\xa9"; }, codec_error::id},

        {"subject of one byte", [](token_record &r) noexcept { r.subject = "0"; }, none},
        {"subject of 255", [](token_record &r) noexcept { r.subject = xs(255); }, none},
        {"non-ASCII subject", [](token_record &r) noexcept { r.subject = "J\xc3\xb6rg \xff"; }, none},
        {"visible subject", [](token_record &r) noexcept { r.subject = " \"'\\,;=~"; }, none},
        {"empty subject", [](token_record &r) noexcept { r.subject = ""; }, codec_error::subject},
        {"subject of 256", [](token_record &r) noexcept { r.subject = xs(256); }, codec_error::subject},
        {"subject of 257, which is 1 in a byte", [](token_record &r) noexcept { r.subject = xs(257); }, codec_error::subject},
        {"line end in the subject", [](token_record &r) noexcept { r.subject = "a\r\nX-Admin: 1"; }, codec_error::subject},
        {"tab in the subject", [](token_record &r) noexcept { r.subject = "a\tb"; }, codec_error::subject},
        {"zero in the subject", [](token_record &r) noexcept { r.subject = "a\0b"sv; }, codec_error::subject},
        {"0x1f in the subject", [](token_record &r) noexcept { r.subject = "\x1f"; }, codec_error::subject},
        {"delete in the subject", [](token_record &r) noexcept { r.subject = "a\x7f"; }, codec_error::subject},

        {"empty name", [](token_record &r) noexcept { r.name = ""; }, none},
        {"name of 255", [](token_record &r) noexcept { r.name = xs(255); }, none},
        {"name of 256", [](token_record &r) noexcept { r.name = xs(256); }, codec_error::name},
        {"line end in the name", [](token_record &r) noexcept { r.name = "a\nb"; }, codec_error::name},
        {"zero at the end of the name", [](token_record &r) noexcept { r.name = "a\0"sv; }, codec_error::name},
        {"escape in the name", [](token_record &r) noexcept { r.name = "\x1b[31m"; }, codec_error::name},
        {"delete in the name", [](token_record &r) noexcept { r.name = "\x7f"; }, codec_error::name},

        {"no scopes", [](token_record &r) noexcept { r.scopes = ""; }, none},
        {"one scope", [](token_record &r) noexcept { r.scopes = "a"; }, none},
        {"two scopes", [](token_record &r) noexcept { r.scopes = "a b"; }, none},
        {"a scope twice", [](token_record &r) noexcept { r.scopes = "a a"; }, none},
        {"scopes at the bounds of the grammar", [](token_record &r) noexcept { r.scopes = "! #[ ]~"; }, none},
        {"two spaces between scopes", [](token_record &r) noexcept { r.scopes = "a  b"; }, codec_error::scopes},
        {"space in front of the scopes", [](token_record &r) noexcept { r.scopes = " a"; }, codec_error::scopes},
        {"space behind the scopes", [](token_record &r) noexcept { r.scopes = "a "; }, codec_error::scopes},
        {"only a space", [](token_record &r) noexcept { r.scopes = " "; }, codec_error::scopes},
        {"tab between scopes", [](token_record &r) noexcept { r.scopes = "a\tb"; }, codec_error::scopes},
        {"comma between scopes is part of one", [](token_record &r) noexcept { r.scopes = "a,b"; }, none},
        {"quote in the first scope", [](token_record &r) noexcept { r.scopes = "a\" b"; }, codec_error::scopes},
        {"quote in the last scope", [](token_record &r) noexcept { r.scopes = "a b\""; }, codec_error::scopes},
        {"backslash in a scope", [](token_record &r) noexcept { r.scopes = "a\\b"; }, codec_error::scopes},
        {"zero in a scope", [](token_record &r) noexcept { r.scopes = "a\0b"sv; }, codec_error::scopes},
        {"line end behind the scopes", [](token_record &r) noexcept { r.scopes = "a\n"; }, codec_error::scopes},
        {"delete in a scope", [](token_record &r) noexcept { r.scopes = "a\x7f"; }, codec_error::scopes},
        {"non-ASCII scope", [](token_record &r) noexcept { r.scopes = "a\xc3\xa9"; }, codec_error::scopes},

        {"no ranges", [](token_record &r) noexcept { r.cidrs = {}; }, none},
        {"ranges cut off", [](token_record &r) noexcept { r.cidrs = r.cidrs.first(23); }, codec_error::cidrs},
        {"v4 /33", [](token_record &r) noexcept { r.cidrs = bytes_of("\x04\x21zzzz"); }, codec_error::cidrs},
        {"family 5", [](token_record &r) noexcept { r.cidrs = bytes_of("\x05\x20zzzz"); }, codec_error::cidrs},

        {"no claims", [](token_record &r) noexcept { r.claims = {}; }, none},
        {"claims cut off", [](token_record &r) noexcept { r.claims = r.claims.first(r.claims.size() - 1); },
         codec_error::claims},
        {"claim without a value", [](token_record &r) noexcept { r.claims = bytes_of("\1\0\0n"sv); }, none},
        {"claim without a name", [](token_record &r) noexcept { r.claims = bytes_of("\0\1\0v"sv); }, codec_error::claims},
        {"header of a claim cut off", [](token_record &r) noexcept { r.claims = bytes_of("\1\0"sv); }, codec_error::claims},
        {"claim name in upper case", [](token_record &r) noexcept { r.claims = bytes_of("\1\1\0Nv"sv); },
         codec_error::claims},
        {"hyphen in a claim name", [](token_record &r) noexcept { r.claims = bytes_of("\3\1\0a-bv"sv); },
         codec_error::claims},
        {"non-ASCII claim name", [](token_record &r) noexcept { r.claims = bytes_of("\2\1\0\xc3\xa9v"sv); },
         codec_error::claims},
        {"line end in a claim", [](token_record &r) noexcept { r.claims = bytes_of("\1\2\0nv\n"sv); }, codec_error::claims},
        {"zero in a claim", [](token_record &r) noexcept { r.claims = bytes_of("\1\2\0nv\0"sv); }, codec_error::claims},
        {"delete in a claim", [](token_record &r) noexcept { r.claims = bytes_of("\1\1\0n\x7f"sv); }, codec_error::claims},
        {"non-ASCII claim", [](token_record &r) noexcept { r.claims = bytes_of("\1\2\0n\xc3\xa9"sv); }, none},
        {"two claims with one value", [](token_record &r) noexcept { r.claims = bytes_of("\1\1\0av\1\1\0bv"sv); }, none},
        {"claim name that starts like another", [](token_record &r) noexcept { r.claims = bytes_of("\1\1\0av\2\1\0aav"sv); },
         none},
        {"a claim twice", [](token_record &r) noexcept { r.claims = bytes_of("\1\1\0av\1\1\0av"sv); }, codec_error::claims},
        {"a claim name twice", [](token_record &r) noexcept { r.claims = bytes_of("\1\1\0av\1\1\0aw"sv); },
         codec_error::claims},
        {"a claim name twice, one between", [](token_record &r) noexcept { r.claims = bytes_of("\1\0\0a\1\0\0b\1\0\0a"sv); },
         codec_error::claims},
        {"a claim name twice, one before", [](token_record &r) noexcept { r.claims = bytes_of("\1\0\0a\1\0\0b\1\0\0b"sv); },
         codec_error::claims},

        {"all times 0",
         [](token_record &r) noexcept {
             r.issued_at = r.not_before = r.expires_at = r.revoked_at = r.local_revoked_at = 0;
         },
         none},
        {"all times at the end of year 9999",
         [](token_record &r) noexcept {
             r.issued_at = r.not_before = r.expires_at = r.revoked_at = r.local_revoked_at = year_9999;
         },
         none},
        {"expired before it was valid", [](token_record &r) noexcept { r.expires_at = 1; }, none},
        {"issued_at negative", [](token_record &r) noexcept { r.issued_at = -1; }, codec_error::time},
        {"not_before negative", [](token_record &r) noexcept { r.not_before = -1; }, codec_error::time},
        {"expires_at negative", [](token_record &r) noexcept { r.expires_at = -1; }, codec_error::time},
        {"revoked_at negative", [](token_record &r) noexcept { r.revoked_at = -1; }, codec_error::time},
        {"local_revoked_at negative", [](token_record &r) noexcept { r.local_revoked_at = -1; }, codec_error::time},
        {"issued_at too late", [](token_record &r) noexcept { r.issued_at = year_9999 + 1; }, codec_error::time},
        {"not_before too late", [](token_record &r) noexcept { r.not_before = year_9999 + 1; }, codec_error::time},
        {"expires_at too late", [](token_record &r) noexcept { r.expires_at = year_9999 + 1; }, codec_error::time},
        {"revoked_at too late", [](token_record &r) noexcept { r.revoked_at = year_9999 + 1; }, codec_error::time},
        {"local_revoked_at too late", [](token_record &r) noexcept { r.local_revoked_at = year_9999 + 1; },
         codec_error::time},
        {"as late as can be", [](token_record &r) noexcept { r.expires_at = INT64_MAX; }, codec_error::time},
        {"as early as can be", [](token_record &r) noexcept { r.expires_at = INT64_MIN; }, codec_error::time},
    };

    for (const row &row : rows) {
        token_record from = full_record();
        row.change(from);
        assert_number_equal(row.label, validate(from), row.error);
    }
}

void every_control_character_is_refused_and_no_other_byte(void **)
{
    for (int byte = 0; byte < 256; byte++) {
        const char text[] = {'a', static_cast<char>(byte), 'b'};
        const bool is_control = byte < 0x20 || byte == 0x7f;
        const bool is_scope_byte = byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
        const bool is_id_byte = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z')
                                || (byte >= 'a' && byte <= 'z') || byte == '.' || byte == '_' || byte == ':'
                                || byte == '@' || byte == '-';
        const char *label = label_at("byte", static_cast<std::size_t>(byte));

        token_record from = minimal_record();
        from.subject = {text, 3};
        assert_number_equal(label, validate(from), is_control ? codec_error::subject : codec_error::none);

        from = minimal_record();
        from.name = {text, 3};
        assert_number_equal(label, validate(from), is_control ? codec_error::name : codec_error::none);

        from = minimal_record();
        from.id = {text, 3};
        assert_number_equal(label, validate(from), is_id_byte ? codec_error::none : codec_error::id);

        from = minimal_record();
        from.scopes = {text, 3};
        assert_number_equal(label, validate(from), is_scope_byte ? codec_error::none : codec_error::scopes);

        claim_bytes claims;
        assert_number_equal(label, append_claim({"n", {text, 3}}, claims.buffer, claims.length), !is_control);
    }
}

void a_control_character_is_found_wherever_it_stands(void **)
{
    constexpr std::size_t longest = 25;
    assert_false(has_control(""));
    for (const char filling : {' ', 'a', '~', '\x80', '\xff'}) {
        for (int byte = 0; byte < 256; byte++) {
            const bool is_control = byte < 0x20 || byte == 0x7f;
            for (std::size_t length = 1; length <= longest; length++) {
                for (std::size_t at = 0; at < length; at++) {
                    std::array<char, longest> text;
                    text.fill(filling);
                    text[at] = static_cast<char>(byte);
                    if (has_control({text.data(), length}) != is_control) {
                        fail_msg("byte %d at %zu of %zu, among %d", byte, at, length, filling);
                    }
                }
            }
        }
    }
}

void a_scope_is_visible_ascii_without_quotes_and_backslashes(void **)
{
    assert_false(is_scope(""));
    for (int byte = 0; byte < 256; byte++) {
        const char text[] = {'a', static_cast<char>(byte)};
        const bool want = byte > 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
        assert_number_equal(label_at("byte", static_cast<std::size_t>(byte)), is_scope({text, 2}), want);
        assert_number_equal(label_at("byte alone,", static_cast<std::size_t>(byte)), is_scope({text + 1, 1}), want);
    }
}

void a_claim_name_is_1_to_64_lower_case_letters_digits_and_underscores(void **)
{
    for (std::size_t length = 0; length <= 300; length++) {
        assert_number_equal(label_at("length", length), is_claim_name(xs(length)), length >= 1 && length <= 64);
    }
    for (int byte = 0; byte < 256; byte++) {
        const char text[] = {'a', static_cast<char>(byte)};
        const bool want = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '_';
        assert_number_equal(label_at("byte", static_cast<std::size_t>(byte)), is_claim_name({text, 2}), want);
    }
}

void a_text_has_blank_ends_if_a_space_stands_there(void **)
{
    assert_true(has_blank_ends(" a"));
    assert_true(has_blank_ends("a "));
    assert_true(has_blank_ends(" "));
    assert_false(has_blank_ends("a b"));
    constexpr std::string_view around = "   ";
    assert_false(has_blank_ends(around.substr(1, 0)));
}

void claims_cut_off_anywhere_but_between_two_are_not_claims(void **)
{
    // One with a value, one without, and one with no name, which are whole, but are not valid.
    constexpr std::string_view whole = "\1\2\0nvv"
                                       "\2\0\0nn"
                                       "\0\0\0"sv;
    for (std::size_t length = 0; length <= whole.size(); length++) {
        specimen cut{bytes_of(whole.substr(0, length))};
        const bool between = length == 0 || length == 6 || length == 11 || length == 14;
        assert_number_equal(label_at("length", length), are_claims(cut.bytes()), between);
    }
}

// ---- appending claims

void a_claim_is_appended_if_it_is_one_and_fits(void **)
{
    struct row {
        const char *label;
        std::size_t length;  ///< of what is there already
        token_claim what;
        bool want;
    };
    const row rows[] = {
        {"into an empty buffer", 0, {"name", "value"}, true},
        {"behind others", 100, {"name", "value"}, true},
        {"without a value", 0, {"name", ""}, true},
        {"name of 64", 0, {xs(64), "value"}, true},
        {"fills the buffer", 0, {"name", xs(4096 - 7)}, true},
        {"fills what is left", 4096 - 8, {"name", "v"}, true},
        {"fills what is left without a value", 4096 - 4, {"n", ""}, true},

        {"one more than the buffer", 0, {"name", xs(4096 - 6)}, false},
        {"one more than what is left", 4096 - 7, {"name", "v"}, false},
        {"only the header would fit", 4096 - 3, {"n", ""}, false},
        {"full", 4096, {"n", ""}, false},
        {"a value of 65536", 0, {"name", xs(65536)}, false},
        {"without a name", 0, {"", "value"}, false},
        {"name of 65", 0, {xs(65), "value"}, false},
        {"name of 256", 0, {xs(256), "value"}, false},
        {"name in upper case", 0, {"Name", "value"}, false},
        {"control character in the value", 0, {"name", "a\nb"}, false},
        {"zero at the end of the value", 0, {"name", "a\0"sv}, false},
    };

    static record_buffer buffer;
    static record_buffer before;
    for (const row &row : rows) {
        buffer.fill(std::byte{0xee});
        before = buffer;
        std::size_t length = row.length;

        assert_number_equal(row.label, append_claim(row.what, buffer, length), row.want);

        const std::size_t added = row.want ? 3 + row.what.name.size() + row.what.value.size() : 0;
        assert_number_equal(row.label, length, row.length + added);
        assert_bytes_equal(row.label, std::span{buffer}.first(row.length), std::span{before}.first(row.length));
        assert_bytes_equal(row.label, std::span{buffer}.subspan(length), std::span{before}.subspan(length));

        if (row.want) {
            auto rest = std::span<const std::byte>{buffer}.subspan(row.length, added);
            assert_number_equal(row.label, rest[0], row.what.name.size());
            assert_number_equal(row.label, rest[1], row.what.value.size() & 0xff);
            assert_number_equal(row.label, rest[2], row.what.value.size() >> 8);

            const token_claim back = take_claim(rest);
            assert_view_equal(row.label, back.name, row.what.name);
            assert_view_equal(row.label, back.value, row.what.value);
            assert_row(row.label, rest.empty());
        }
    }
}

// ---- messages

void two_records_are_equal_if_all_but_the_generation_is(void **)
{
    const token_record full = full_record();
    token_record other = full_record();
    other.generation++;
    other.format = first_format;
    assert_true(full == other);

    constexpr void (*changes[])(token_record &) = {
        [](token_record &r) { r.sequence++; },         [](token_record &r) { r.issued_at++; },
        [](token_record &r) { r.not_before++; },       [](token_record &r) { r.expires_at++; },
        [](token_record &r) { r.revoked_at++; },       [](token_record &r) { r.local_revoked_at++; },
        [](token_record &r) { r.denied = !r.denied; }, [](token_record &r) { r.id = "other"; },
        [](token_record &r) { r.subject = "other"; },  [](token_record &r) { r.name = "other"; },
        [](token_record &r) { r.scopes = "other"; },   [](token_record &r) { r.cidrs = r.cidrs.subspan(1); },
        [](token_record &r) { r.claims = {}; },
    };
    for (const auto change : changes) {
        token_record changed = full_record();
        change(changed);
        assert_false(full == changed);
    }
}

void every_error_has_a_message_of_its_own(void **)
{
    constexpr auto last = static_cast<unsigned>(codec_error::too_long);

    for (unsigned one = 0; one <= last; one++) {
        const std::string_view text = message(static_cast<codec_error>(one));
        const char *label = label_at("error", one);

        assert_row(label, !text.empty());
        assert_row(label, text != message(static_cast<codec_error>(last + 1)));
        assert_row(label, text.front() >= 'a' && text.front() <= 'z');
        assert_row(label, !text.ends_with('.'));
        for (unsigned other = 0; other < one; other++) {
            assert_row(label, text != message(static_cast<codec_error>(other)));
        }
    }
    assert_view_equal("no error of ours", message(static_cast<codec_error>(last + 1)), "unknown error");
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_token_key_is_t_and_the_digest),
        cmocka_unit_test(a_tombstone_key_is_d_and_the_digest),
        cmocka_unit_test(the_meta_key_is_m),
        cmocka_unit_test(only_a_token_key_holds_a_digest),
        cmocka_unit_test(token_records_are_the_golden_bytes),
        cmocka_unit_test(meta_records_are_the_golden_bytes),
        cmocka_unit_test(tombstones_are_the_golden_bytes),
        cmocka_unit_test(early_revocations_are_the_golden_bytes),
        cmocka_unit_test(held_snapshots_are_the_golden_bytes),
        cmocka_unit_test(a_damaged_early_revocation_is_refused),
        cmocka_unit_test(a_damaged_tombstone_is_refused),
        cmocka_unit_test(a_tombstone_has_a_time),
        cmocka_unit_test(decoding_leaves_nothing_of_what_was_in_the_record_before),
        cmocka_unit_test(encoding_leaves_nothing_of_what_was_in_the_buffer_before),
        cmocka_unit_test(the_claims_of_a_record_are_taken_one_after_the_other),
        cmocka_unit_test(every_truncation_of_a_record_is_refused),
        cmocka_unit_test(every_extension_of_a_record_is_refused),
        cmocka_unit_test(every_flipped_bit_of_a_value_is_refused),
        cmocka_unit_test(every_flipped_bit_of_a_key_is_refused),
        cmocka_unit_test(a_record_of_one_kind_is_not_one_of_the_other),
        cmocka_unit_test(a_newer_version_is_told_from_damage),
        cmocka_unit_test(a_newer_version_may_be_longer_than_ours),
        cmocka_unit_test(a_token_record_that_contradicts_itself_is_refused),
        cmocka_unit_test(a_token_record_of_version_1_that_contradicts_itself_is_refused),
        cmocka_unit_test(a_field_takes_no_room_where_it_is_absent),
        cmocka_unit_test(every_set_of_fields_comes_back_and_is_encoded_as_it_was),
        cmocka_unit_test(no_change_of_the_header_gives_a_record_of_another_encoding),
        cmocka_unit_test(a_flag_that_is_not_known_is_refused_whatever_follows),
        cmocka_unit_test(a_time_past_the_year_9999_is_refused),
        cmocka_unit_test(the_id_of_a_token_record_has_at_most_64_bytes),
        cmocka_unit_test(a_meta_record_that_contradicts_itself_is_refused),
        cmocka_unit_test(the_epoch_and_the_cursor_are_bounded),
        cmocka_unit_test(the_heartbeat_is_a_time),
        cmocka_unit_test(a_time_that_no_record_may_have_is_not_read),
        cmocka_unit_test(the_numbers_of_the_states_stand_in_the_store),
        cmocka_unit_test(every_state_has_its_name),
        cmocka_unit_test(a_store_has_a_source_that_has_sent_an_epoch_or_a_sequence),
        cmocka_unit_test(a_store_is_made_with_one_pepper),
        cmocka_unit_test(a_record_has_at_most_4096_bytes),
        cmocka_unit_test(a_longer_record_is_refused_when_it_is_read),
        cmocka_unit_test(lengths_past_16_bits_are_not_cut_to_16_bits),
        cmocka_unit_test(nothing_is_encoded_that_is_not_valid),
        cmocka_unit_test(a_record_is_valid_by_the_rules_of_its_values),
        cmocka_unit_test(every_control_character_is_refused_and_no_other_byte),
        cmocka_unit_test(a_control_character_is_found_wherever_it_stands),
        cmocka_unit_test(a_scope_is_visible_ascii_without_quotes_and_backslashes),
        cmocka_unit_test(a_claim_name_is_1_to_64_lower_case_letters_digits_and_underscores),
        cmocka_unit_test(a_text_has_blank_ends_if_a_space_stands_there),
        cmocka_unit_test(claims_cut_off_anywhere_but_between_two_are_not_claims),
        cmocka_unit_test(a_claim_is_appended_if_it_is_one_and_fits),
        cmocka_unit_test(two_records_are_equal_if_all_but_the_generation_is),
        cmocka_unit_test(every_error_has_a_message_of_its_own),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
