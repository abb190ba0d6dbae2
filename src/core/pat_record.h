#pragma once

#include "core/pat_digest.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

/// The codec of the store: the bytes of a token record and of the meta record. docs/store-format.md says the same in
/// prose; t/unit/golden pins the bytes.
///
/// Keys:
///
///     'd' digest[32]            the tombstone of a digest whose token was deleted
///     'e' digest[32]            the early revocation of a digest whose token is not here yet
///     'h'                       the snapshot that is held back (writer/pat_held.h)
///     'm'                       the meta record
///     't' digest[32]            the token record of a digest
///
/// Token record, all integers little-endian, all times Unix seconds (UTC):
///
///      0  u32  checksum           CRC-32C of the key, then of the value from byte 4 on
///      4  u8   version            2
///      5  u8   id length          1..64
///      6  u16  flags              which of the fields below are there; a reader refuses a flag it does not know
///      8  u8   subject length     1..255
///      9       the fields, in this order, and each only if its flag is set; none of them is 0
///
///              bit 0              denied; has no field
///              bit 1   u8         generation         in which the sequence counts
///              bit 2   u32        sequence           the source's number of the change, its lower half
///              bit 3   u32        sequence, its upper half; neither for a token made on this host
///              bit 4   u40        issued_at
///              bit 5   u40        not_before         without it: from the start
///              bit 6   u40        expires_at         without it: never
///              bit 7   u40        revoked_at         by the source
///              bit 8   u40        local_revoked_at   by patctl on this host, which a source can't undo
///              bit 9   u8         name length
///              bit 10  u16        scopes length
///              bit 11  u16        cidrs length
///              bit 12  u16        claims length
///
///              id, subject, name, scopes (separated by one space), cidrs (pat_address.h),
///              claims (u8 name length, u16 value length, name, value; …)
///
/// Token record of version 1, which a store of format 1 has, and any store while it is converted:
///
///      0  u32  checksum           as above
///      4  u8   version            1
///      5  u8   flags              bit 0: denied; a reader refuses a flag it does not know
///      6  u8   id length          1..64
///      7  u8   subject length     1..255
///      8  u8   name length        0..255
///      9  u8   generation
///     10  u16  scopes length
///     12  u16  cidrs length
///     14  u16  claims length
///     16  u64  sequence           0 where version 2 has no such field, as all that follow
///     24  i64  issued_at
///     32  i64  not_before
///     40  i64  expires_at
///     48  i64  revoked_at
///     56  i64  local_revoked_at
///     64       id, subject, name, scopes, cidrs, claims
///
/// Meta record:
///
///      0  u32  checksum           as above
///      4  u8   version            the format of the store, 1 or 2; a release that does not know it refuses the store
///      5  u8   digest scheme
///      6  u8   state
///      7  u8   generation         of the source's history; a sequence of another one counts as 0
///      8  u8×8 magic              "auth_pat"
///     16  u8×8 key id             all zero without a pepper
///     24  i64  heartbeat          last successful look at the source; 0 = no source has been looked at
///     32  u64  last sequence      the highest that was applied
///     40  u64  tokens             number of token records
///     48  u64  revoked            how many of them are revoked, by the source or on this host
///     56  u64  snapshot sequence  what the newest snapshot of the source includes
///     64  u16  epoch length       0..64
///     66  u16  cursor length      0..256
///     68  u8   open generations   begun since the newest snapshot that was completed
///     69  u8   record format      the version in which token records are written; 0 in format 1, where it is 1
///     70  u8×2                    0
///     72       epoch, cursor
///
/// Tombstone:
///
///      0  u32  checksum           as above
///      4  u8   version            1
///      5  u8   generation         in which the sequence counts
///      6  u8   flags              bit 0: revoked, and not deleted
///      7  u8                      0
///      8  u64  sequence           a record of this digest counts only if it has a higher one
///     16  i64  deleted_at
///
/// Early revocation:
///
///      0  u32  checksum           as above
///      4  u8   version            1
///      5  u8   flags              bit 0: denied
///      6  u8×2                    0
///      8  i64  local_revoked_at   0 = not; as in a token record, which both are carried over to when it is written
namespace pat {

/// Versions of token records and of the meta record. All other records are of the first.
inline constexpr std::uint8_t first_format = 1;
inline constexpr std::uint8_t newest_format = 2;

inline constexpr std::size_t max_record_length = 4096;

/// Of id, subject, name, scopes, cidrs and claims together: what version 1 has room for, so that any record can be
/// written in either version.
inline constexpr std::size_t max_texts_length = max_record_length - 64;

inline constexpr std::size_t max_id_length = 64;
inline constexpr std::size_t max_subject_length = 255;
inline constexpr std::size_t max_name_length = 255;
inline constexpr std::size_t max_claim_name_length = 64;
inline constexpr std::size_t max_epoch_length = 64;
inline constexpr std::size_t max_cursor_length = 256;

using token_key = std::array<std::byte, 1 + digest_length>;

[[nodiscard]] token_key make_token_key(const token_digest &digest) noexcept;
[[nodiscard]] std::span<const std::byte> meta_key() noexcept;

[[nodiscard]] token_key make_tombstone_key(const token_digest &digest) noexcept;
[[nodiscard]] token_key make_early_key(const token_digest &digest) noexcept;

/// The digest in a key, or nothing if it isn't the key of a token record.
[[nodiscard]] std::optional<token_digest> digest_of_key(std::span<const std::byte> key) noexcept;
[[nodiscard]] std::optional<token_digest> digest_of_tombstone_key(std::span<const std::byte> key) noexcept;
[[nodiscard]] std::optional<token_digest> digest_of_early_key(std::span<const std::byte> key) noexcept;

/// What a token record has besides texts and lists.
struct record_scalars {
    std::uint64_t sequence = 0;
    std::int64_t issued_at = 0;
    std::int64_t not_before = 0;
    std::int64_t expires_at = 0;
    std::int64_t revoked_at = 0;
    std::int64_t local_revoked_at = 0;
    bool denied = false;  ///< the source has changed the token, but to something that can't be used

    bool operator==(const record_scalars &) const noexcept = default;
};

/// A token record. The texts and spans point into the bytes it was decoded from, or at what is to be encoded.
struct token_record : record_scalars {
    std::uint8_t format = newest_format;  ///< the version that it was decoded from, or is to be encoded in
    std::uint8_t generation = 0;
    std::string_view id;
    std::string_view subject;
    std::string_view name;
    std::string_view scopes;
    std::span<const std::byte> cidrs;
    std::span<const std::byte> claims;

    /// What the meta record counts. The policy revokes a token with a blank-ended subject besides.
    [[nodiscard]] bool is_revoked() const noexcept { return revoked_at != 0 || local_revoked_at != 0 || denied; }
};

/// Whether two records say the same. The generation is where the sequence counts, and no part of that; neither is the
/// format.
[[nodiscard]] bool operator==(const token_record &first, const token_record &second) noexcept;

/// What is known of a token without a record, so that an older change can't bring it back.
struct tombstone {
    std::uint64_t sequence = 0;
    std::int64_t deleted_at = 0;  ///< when this host heard of it
    std::uint8_t generation = 0;
    bool revoked = false;  ///< the token was revoked before its record was here
};

/// What this host holds against a token that has no record yet. No source undoes it: the record gets it.
struct early_revocation {
    std::int64_t local_revoked_at = 0;
    bool denied = false;  ///< as in a record
};

enum class store_state : std::uint8_t {
    empty = 1,   ///< nothing has been written yet
    ready = 2,   ///< holds what its source held at the cursor, or what patctl put there
    resync = 3,  ///< a full resync is under way; what is there is still served
};

/// The name of a state in figures for people and programs.
[[nodiscard]] std::string_view name(store_state state) noexcept;

/// The meta record; texts as in `token_record`.
struct meta_record {
    std::uint8_t format = newest_format;         ///< of the store: no record is of a later version
    std::uint8_t record_format = newest_format;  ///< in which records are written: lower while it is converted back
    digest_scheme scheme = digest_scheme::sha256;
    key_id key{};
    store_state state = store_state::empty;
    std::int64_t heartbeat = 0;
    std::uint64_t last_sequence = 0;
    std::uint64_t tokens = 0;
    std::uint64_t revoked = 0;
    std::uint64_t snapshot_sequence = 0;
    std::uint8_t generation = 0;
    std::uint8_t open_generations = 0;
    std::string_view epoch;
    std::string_view cursor;

    /// Whether a source has sent something; what it sent it may send again.
    [[nodiscard]] bool has_source() const noexcept { return !epoch.empty() || last_sequence != 0; }

    [[nodiscard]] bool made_with(const token_hasher &hasher) const noexcept
    {
        return scheme == hasher.scheme() && key == hasher.key();
    }
};

/// Why bytes are not a record, or a record can't become bytes.
enum class codec_error : std::uint8_t {
    none,
    too_short,
    newer_version,
    checksum,
    inconsistent,  ///< the lengths and values contradict each other
    id,
    subject,
    name,
    scopes,
    cidrs,
    claims,
    time,
    epoch,
    cursor,
    too_long,
};

/// What is wrong, as the end of a sentence, in lower case.
[[nodiscard]] std::string_view message(codec_error error) noexcept;

/// Decodes the value found under `key`: a whole record, of a version and with flags that are known, whose parts lie
/// inside it. What they say was checked when they were encoded. Version 2 has one encoding of each record, and no other
/// is decoded. Only `codec_error::none` leaves something usable in `out`.
[[nodiscard]] codec_error decode(std::span<const std::byte> key, std::span<const std::byte> value,
                                 token_record &out) noexcept;
[[nodiscard]] codec_error decode_meta(std::span<const std::byte> value, meta_record &out) noexcept;
[[nodiscard]] codec_error decode(std::span<const std::byte> key, std::span<const std::byte> value,
                                 tombstone &out) noexcept;
[[nodiscard]] codec_error decode(std::span<const std::byte> key, std::span<const std::byte> value,
                                 early_revocation &out) noexcept;

/// What an encoder wrote: `bytes` is part of the buffer that was passed in, or empty after an error.
struct encoded {
    codec_error error;
    std::span<const std::byte> bytes;
};

using record_buffer = std::array<std::byte, max_record_length>;

/// Encodes what passes `validate`.
[[nodiscard]] encoded encode(std::span<const std::byte> key, const token_record &record,
                             record_buffer &buffer) noexcept;
[[nodiscard]] encoded encode_meta(const meta_record &meta, record_buffer &buffer) noexcept;
[[nodiscard]] encoded encode(std::span<const std::byte> key, const tombstone &tombstone,
                             record_buffer &buffer) noexcept;
[[nodiscard]] encoded encode(std::span<const std::byte> key, const early_revocation &revocation,
                             record_buffer &buffer) noexcept;

/// The rules for a record's values, which protect those who use them: an id goes into logs, a subject into headers.
/// id: 1 to 64 letters, digits and `._:@-`. subject: 1 to 255 bytes; name, claim value: also empty; none of them with
/// control characters. scopes: scope-tokens of RFC 6749, section 3.3, with one space between. claim names: letters in
/// lower case, digits and `_`, each once. Times: 0 or later, at most year 9999.
[[nodiscard]] codec_error validate(const token_record &record) noexcept;

/// Whether `text` has a control character, which may end a header or a line of a log. `validate` lets none in; a store
/// that somebody else wrote may have one in any text of a record.
[[nodiscard]] bool has_control(std::string_view text) noexcept;

/// True if `text` can be the id of a token.
[[nodiscard]] bool is_id(std::string_view text) noexcept;

/// True if `text` begins or ends with a space. What reads a header strips blanks there (RFC 9110, section 5.5), so that
/// an upstream would take it for another text. A tab is a control character, which no text may have; nothing but these
/// two is a blank to HTTP.
[[nodiscard]] constexpr bool has_blank_ends(std::string_view text) noexcept
{
    return !text.empty() && (text.front() == ' ' || text.back() == ' ');
}

/// True if an upstream can be told this subject as it is. A store may hold others, which earlier versions or forgers
/// wrote; they get in nowhere.
[[nodiscard]] inline bool is_sendable(std::string_view subject) noexcept
{
    return !has_blank_ends(subject) && !has_control(subject);
}

/// True if `text` is one scope-token of RFC 6749, section 3.3.
[[nodiscard]] bool is_scope(std::string_view text) noexcept;

/// True if `text` can be the name of a claim.
[[nodiscard]] bool is_claim_name(std::string_view text) noexcept;

struct token_claim {
    std::string_view name;
    std::string_view value;
};

/// Takes the first claim off `claims`, which come from a decoded record and are not empty.
[[nodiscard]] token_claim take_claim(std::span<const std::byte> &claims) noexcept;

/// Appends a claim at `length` of `buffer`; false, and nothing changed, if it doesn't fit or is not a claim.
[[nodiscard]] bool append_claim(const token_claim &claim, record_buffer &buffer, std::size_t &length) noexcept;

}  // namespace pat
