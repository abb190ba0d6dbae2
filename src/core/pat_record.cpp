#include "core/pat_record.h"

#include "core/pat_address.h"
#include "core/pat_bytes.h"
#include "core/pat_crc32c.h"

#include <algorithm>

namespace pat {

namespace {

constexpr std::size_t claim_header_length = 3;
constexpr std::array<std::byte, 8> meta_magic{std::byte{'a'}, std::byte{'u'}, std::byte{'t'}, std::byte{'h'},
                                              std::byte{'_'}, std::byte{'p'}, std::byte{'a'}, std::byte{'t'}};

/// Year 9999, the last that RFC 3339 can write.
constexpr std::int64_t max_time = 253402300799;

constexpr std::array<std::byte, 1> the_meta_key{std::byte{'m'}};
constexpr std::byte token_tag{'t'};
constexpr std::byte tombstone_tag{'d'};
constexpr std::byte early_tag{'e'};

constexpr std::byte denied_flag{1};
constexpr std::byte revoked_flag{1};

/// Offsets, as drawn in the header.
constexpr std::size_t checksum_at = 0;
constexpr std::size_t version_at = 4;

namespace token_at {
constexpr std::size_t flags = 5;
constexpr std::size_t id_length = 6;
constexpr std::size_t subject_length = 7;
constexpr std::size_t name_length = 8;
constexpr std::size_t generation = 9;
constexpr std::size_t scopes_length = 10;
constexpr std::size_t cidrs_length = 12;
constexpr std::size_t claims_length = 14;
constexpr std::size_t sequence = 16;
constexpr std::size_t issued_at = 24;
constexpr std::size_t not_before = 32;
constexpr std::size_t expires_at = 40;
constexpr std::size_t revoked_at = 48;
constexpr std::size_t local_revoked_at = 56;
constexpr std::size_t texts = 64;
}  // namespace token_at

namespace meta_at {
constexpr std::size_t scheme = 5;
constexpr std::size_t state = 6;
constexpr std::size_t generation = 7;
constexpr std::size_t magic = 8;
constexpr std::size_t key_id = 16;
constexpr std::size_t heartbeat = 24;
constexpr std::size_t last_sequence = 32;
constexpr std::size_t tokens = 40;
constexpr std::size_t revoked = 48;
constexpr std::size_t snapshot_sequence = 56;
constexpr std::size_t epoch_length = 64;
constexpr std::size_t cursor_length = 66;
constexpr std::size_t open_generations = 68;
constexpr std::size_t zero = 69;
constexpr std::size_t texts = 72;
}  // namespace meta_at

namespace tombstone_at {
constexpr std::size_t generation = 5;
constexpr std::size_t flags = 6;
constexpr std::size_t zero = 7;
constexpr std::size_t sequence = 8;
constexpr std::size_t deleted_at = 16;
constexpr std::size_t end = 24;
}  // namespace tombstone_at

namespace early_at {
constexpr std::size_t flags = 5;
constexpr std::size_t zero = 6;
constexpr std::size_t local_revoked_at = 8;
constexpr std::size_t end = 16;
}  // namespace early_at

std::uint32_t checksum_of(std::span<const std::byte> key, std::span<const std::byte> value) noexcept
{
    return crc32c(value.subspan(version_at), crc32c(key));
}

/// What all kinds of record have in common.
codec_error check_envelope(std::span<const std::byte> key, std::span<const std::byte> value,
                           std::size_t header_length) noexcept
{
    if (value.size() < header_length) {
        return codec_error::too_short;
    }
    if (std::to_integer<std::uint8_t>(value[version_at]) > format_version) {
        return codec_error::newer_version;
    }
    if (value.size() > max_record_length) {
        return codec_error::too_long;
    }
    if (load_le<std::uint32_t>(&value[checksum_at]) != checksum_of(key, value)) {
        return codec_error::checksum;
    }
    if (std::to_integer<std::uint8_t>(value[version_at]) != format_version) {
        return codec_error::inconsistent;
    }
    return codec_error::none;
}

bool is_zero(std::span<const std::byte> bytes) noexcept
{
    return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

bool are_claims(std::span<const std::byte> claims) noexcept
{
    while (!claims.empty()) {
        if (claims.size() < claim_header_length) {
            return false;
        }
        const std::size_t length =
            claim_header_length + std::to_integer<std::size_t>(claims[0]) + load_le<std::uint16_t>(&claims[1]);
        if (claims.size() < length) {
            return false;
        }
        claims = claims.subspan(length);
    }
    return true;
}

/// Hands out the variable part of a record, piece by piece.
class cutter {
public:
    explicit cutter(std::span<const std::byte> rest) noexcept : rest_{rest} {}

    std::span<const std::byte> bytes(std::size_t length) noexcept
    {
        const auto piece = rest_.first(length);
        rest_ = rest_.subspan(length);
        return piece;
    }

    std::string_view text(std::size_t length) noexcept { return text_of(bytes(length)); }

private:
    std::span<const std::byte> rest_;
};

/// Appends to a buffer that was found large enough.
class filler {
public:
    explicit filler(std::byte *bytes) noexcept : at_{bytes} {}

    void put(std::span<const std::byte> bytes) noexcept { at_ = std::ranges::copy(bytes, at_).out; }
    void put(std::string_view text) noexcept { put(bytes_of(text)); }

private:
    std::byte *at_;
};

bool is_time(std::int64_t time) noexcept
{
    return time >= 0 && time <= max_time;
}

constexpr byte_set id_characters{"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._:@-"};
constexpr byte_set claim_name_characters{"0123456789abcdefghijklmnopqrstuvwxyz_"};

bool is_scope_character(char c) noexcept
{
    return c > 0x20 && c < 0x7f && c != '"' && c != '\\';
}

bool are_scopes(std::string_view scopes) noexcept
{
    if (scopes.empty()) {
        return true;
    }
    for (std::size_t space; (space = scopes.find(' ')) != std::string_view::npos; scopes.remove_prefix(space + 1)) {
        if (!is_scope(head(scopes, space))) {
            return false;
        }
    }
    return is_scope(scopes);
}

bool claims_are_valid(std::span<const std::byte> claims) noexcept
{
    if (!are_claims(claims)) {
        return false;
    }
    while (!claims.empty()) {
        const token_claim claim = take_claim(claims);
        if (!is_claim_name(claim.name) || has_control(claim.value)) {
            return false;
        }
        for (auto others = claims; !others.empty();) {
            if (take_claim(others).name == claim.name) {
                return false;
            }
        }
    }
    return true;
}

void seal(std::span<const std::byte> key, std::span<std::byte> value) noexcept
{
    store_le(&value[checksum_at], checksum_of(key, value));
}

token_key make_key(std::byte tag, const token_digest &digest) noexcept
{
    token_key key;
    key[0] = tag;
    std::ranges::copy(digest, key.begin() + 1);
    return key;
}

std::optional<token_digest> take_digest(std::byte tag, std::span<const std::byte> key) noexcept
{
    if (key.size() != sizeof(token_key) || key[0] != tag) {
        return std::nullopt;
    }
    token_digest result;
    std::ranges::copy(key.subspan(1), result.begin());
    return result;
}

}  // namespace

token_key make_token_key(const token_digest &digest) noexcept
{
    return make_key(token_tag, digest);
}

token_key make_tombstone_key(const token_digest &digest) noexcept
{
    return make_key(tombstone_tag, digest);
}

token_key make_early_key(const token_digest &digest) noexcept
{
    return make_key(early_tag, digest);
}

std::span<const std::byte> meta_key() noexcept
{
    return the_meta_key;
}

std::optional<token_digest> digest_of_key(std::span<const std::byte> key) noexcept
{
    return take_digest(token_tag, key);
}

std::optional<token_digest> digest_of_tombstone_key(std::span<const std::byte> key) noexcept
{
    return take_digest(tombstone_tag, key);
}

std::optional<token_digest> digest_of_early_key(std::span<const std::byte> key) noexcept
{
    return take_digest(early_tag, key);
}

std::string_view name(store_state state) noexcept
{
    switch (state) {
    case store_state::empty: return "empty";
    case store_state::ready: return "ready";
    case store_state::resync: return "resync";
    }
    return "unknown";
}

std::string_view message(codec_error error) noexcept
{
    switch (error) {
    case codec_error::none: return "no error";
    case codec_error::too_short: return "the record is too short";
    case codec_error::newer_version: return "the record was written by a newer version";
    case codec_error::checksum: return "the checksum of the record is wrong";
    case codec_error::inconsistent: return "the record contradicts itself";
    case codec_error::id: return "the id must be 1 to 64 letters, digits, or any of \"._:@-\"";
    case codec_error::subject: return "the subject must be 1 to 255 bytes without control characters";
    case codec_error::name: return "the name must be at most 255 bytes without control characters";
    case codec_error::scopes: return "a scope must be visible ASCII without quotes and backslashes (RFC 6749)";
    case codec_error::cidrs: return "the address ranges are malformed";
    case codec_error::claims:
        return "a claim needs a name of 1 to 64 lower-case letters, digits and \"_\", used once, and a value without "
               "control characters";
    case codec_error::time: return "a time must lie between 1970 and 9999";
    case codec_error::epoch: return "the epoch is longer than 64 bytes";
    case codec_error::cursor: return "the cursor is longer than 256 bytes";
    case codec_error::too_long: return "the record is longer than 4096 bytes";
    }
    return "unknown error";
}

bool operator==(const token_record &first, const token_record &second) noexcept
{
    const record_scalars &scalars = first;
    return scalars == second && first.id == second.id && first.subject == second.subject && first.name == second.name
           && first.scopes == second.scopes && std::ranges::equal(first.cidrs, second.cidrs)
           && std::ranges::equal(first.claims, second.claims);
}

codec_error decode(std::span<const std::byte> key, std::span<const std::byte> value, token_record &out) noexcept
{
    if (const codec_error error = check_envelope(key, value, token_at::texts); error != codec_error::none) {
        return error;
    }

    const auto length_8 = [&](std::size_t offset) { return std::to_integer<std::size_t>(value[offset]); };
    const auto length_16 = [&](std::size_t offset) { return std::size_t{load_le<std::uint16_t>(&value[offset])}; };

    const std::size_t id = length_8(token_at::id_length);
    const std::size_t subject = length_8(token_at::subject_length);
    const std::size_t name = length_8(token_at::name_length);
    const std::size_t scopes = length_16(token_at::scopes_length);
    const std::size_t cidrs = length_16(token_at::cidrs_length);
    const std::size_t claims = length_16(token_at::claims_length);

    if (token_at::texts + id + subject + name + scopes + cidrs + claims != value.size() || id == 0 || id > max_id_length
        || subject == 0 || (value[token_at::flags] & ~denied_flag) != std::byte{0}) {
        return codec_error::inconsistent;
    }

    out.sequence = load_le<std::uint64_t>(&value[token_at::sequence]);
    out.issued_at = load_le<std::int64_t>(&value[token_at::issued_at]);
    out.not_before = load_le<std::int64_t>(&value[token_at::not_before]);
    out.expires_at = load_le<std::int64_t>(&value[token_at::expires_at]);
    out.revoked_at = load_le<std::int64_t>(&value[token_at::revoked_at]);
    out.local_revoked_at = load_le<std::int64_t>(&value[token_at::local_revoked_at]);
    out.generation = load_le<std::uint8_t>(&value[token_at::generation]);
    out.denied = value[token_at::flags] == denied_flag;

    cutter cut{value.subspan(token_at::texts)};
    out.id = cut.text(id);
    out.subject = cut.text(subject);
    out.name = cut.text(name);
    out.scopes = cut.text(scopes);
    out.cidrs = cut.bytes(cidrs);
    out.claims = cut.bytes(claims);

    if (!are_cidrs(out.cidrs) || !are_claims(out.claims)) {
        return codec_error::inconsistent;
    }

    return codec_error::none;
}

codec_error decode_meta(std::span<const std::byte> value, meta_record &out) noexcept
{
    if (const codec_error error = check_envelope(meta_key(), value, meta_at::texts); error != codec_error::none) {
        return error;
    }

    const auto scheme = static_cast<digest_scheme>(value[meta_at::scheme]);
    const auto state = static_cast<store_state>(value[meta_at::state]);
    const std::size_t epoch = load_le<std::uint16_t>(&value[meta_at::epoch_length]);
    const std::size_t cursor = load_le<std::uint16_t>(&value[meta_at::cursor_length]);

    if ((scheme != digest_scheme::sha256 && scheme != digest_scheme::hmac_sha256) || state < store_state::empty
        || state > store_state::resync
        || !std::ranges::equal(value.subspan(meta_at::magic, meta_magic.size()), meta_magic)
        || !is_zero(value.subspan(meta_at::zero, meta_at::texts - meta_at::zero)) || epoch > max_epoch_length
        || cursor > max_cursor_length || meta_at::texts + epoch + cursor != value.size()) {
        return codec_error::inconsistent;
    }

    out.scheme = scheme;
    out.state = state;
    std::ranges::copy(value.subspan(meta_at::key_id, out.key.size()), out.key.begin());
    out.heartbeat = load_le<std::int64_t>(&value[meta_at::heartbeat]);
    out.last_sequence = load_le<std::uint64_t>(&value[meta_at::last_sequence]);
    out.tokens = load_le<std::uint64_t>(&value[meta_at::tokens]);
    out.revoked = load_le<std::uint64_t>(&value[meta_at::revoked]);
    out.snapshot_sequence = load_le<std::uint64_t>(&value[meta_at::snapshot_sequence]);
    out.generation = load_le<std::uint8_t>(&value[meta_at::generation]);
    out.open_generations = load_le<std::uint8_t>(&value[meta_at::open_generations]);

    cutter cut{value.subspan(meta_at::texts)};
    out.epoch = cut.text(epoch);
    out.cursor = cut.text(cursor);

    return codec_error::none;
}

codec_error decode(std::span<const std::byte> key, std::span<const std::byte> value, tombstone &out) noexcept
{
    if (const codec_error error = check_envelope(key, value, tombstone_at::end); error != codec_error::none) {
        return error;
    }
    if (value.size() != tombstone_at::end || (value[tombstone_at::flags] & ~revoked_flag) != std::byte{0}
        || value[tombstone_at::zero] != std::byte{0}) {
        return codec_error::inconsistent;
    }

    out.sequence = load_le<std::uint64_t>(&value[tombstone_at::sequence]);
    out.deleted_at = load_le<std::int64_t>(&value[tombstone_at::deleted_at]);
    out.generation = load_le<std::uint8_t>(&value[tombstone_at::generation]);
    out.revoked = value[tombstone_at::flags] == revoked_flag;
    return codec_error::none;
}

codec_error decode(std::span<const std::byte> key, std::span<const std::byte> value, early_revocation &out) noexcept
{
    if (const codec_error error = check_envelope(key, value, early_at::end); error != codec_error::none) {
        return error;
    }
    if (value.size() != early_at::end || (value[early_at::flags] & ~denied_flag) != std::byte{0}
        || !is_zero(value.subspan(early_at::zero, early_at::local_revoked_at - early_at::zero))) {
        return codec_error::inconsistent;
    }

    out.local_revoked_at = load_le<std::int64_t>(&value[early_at::local_revoked_at]);
    out.denied = value[early_at::flags] == denied_flag;
    return codec_error::none;
}

encoded encode(std::span<const std::byte> key, const token_record &record, record_buffer &buffer) noexcept
{
    if (const codec_error error = validate(record); error != codec_error::none) {
        return {error, {}};
    }

    const std::size_t length = token_at::texts + record.id.size() + record.subject.size() + record.name.size()
                               + record.scopes.size() + record.cidrs.size() + record.claims.size();
    if (length > buffer.size()) {
        return {codec_error::too_long, {}};
    }

    std::fill_n(buffer.begin(), token_at::texts, std::byte{0});
    buffer[version_at] = std::byte{format_version};
    buffer[token_at::flags] = record.denied ? denied_flag : std::byte{0};
    buffer[token_at::generation] = std::byte{record.generation};
    buffer[token_at::id_length] = static_cast<std::byte>(record.id.size());
    buffer[token_at::subject_length] = static_cast<std::byte>(record.subject.size());
    buffer[token_at::name_length] = static_cast<std::byte>(record.name.size());
    store_le(&buffer[token_at::scopes_length], static_cast<std::uint16_t>(record.scopes.size()));
    store_le(&buffer[token_at::cidrs_length], static_cast<std::uint16_t>(record.cidrs.size()));
    store_le(&buffer[token_at::claims_length], static_cast<std::uint16_t>(record.claims.size()));
    store_le(&buffer[token_at::sequence], record.sequence);
    store_le(&buffer[token_at::issued_at], record.issued_at);
    store_le(&buffer[token_at::not_before], record.not_before);
    store_le(&buffer[token_at::expires_at], record.expires_at);
    store_le(&buffer[token_at::revoked_at], record.revoked_at);
    store_le(&buffer[token_at::local_revoked_at], record.local_revoked_at);

    filler fill{&buffer[token_at::texts]};
    fill.put(record.id);
    fill.put(record.subject);
    fill.put(record.name);
    fill.put(record.scopes);
    fill.put(record.cidrs);
    fill.put(record.claims);

    const auto bytes = std::span{buffer}.first(length);
    seal(key, bytes);
    return {codec_error::none, bytes};
}

encoded encode_meta(const meta_record &meta, record_buffer &buffer) noexcept
{
    if (meta.epoch.size() > max_epoch_length) {
        return {codec_error::epoch, {}};
    }
    if (meta.cursor.size() > max_cursor_length) {
        return {codec_error::cursor, {}};
    }
    if (!is_time(meta.heartbeat)) {
        return {codec_error::time, {}};
    }

    std::fill_n(buffer.begin(), meta_at::texts, std::byte{0});
    buffer[version_at] = std::byte{format_version};
    buffer[meta_at::generation] = std::byte{meta.generation};
    buffer[meta_at::open_generations] = std::byte{meta.open_generations};
    buffer[meta_at::scheme] = static_cast<std::byte>(meta.scheme);
    buffer[meta_at::state] = static_cast<std::byte>(meta.state);
    std::ranges::copy(meta_magic, &buffer[meta_at::magic]);
    std::ranges::copy(meta.key, &buffer[meta_at::key_id]);
    store_le(&buffer[meta_at::heartbeat], meta.heartbeat);
    store_le(&buffer[meta_at::last_sequence], meta.last_sequence);
    store_le(&buffer[meta_at::tokens], meta.tokens);
    store_le(&buffer[meta_at::revoked], meta.revoked);
    store_le(&buffer[meta_at::snapshot_sequence], meta.snapshot_sequence);
    store_le(&buffer[meta_at::epoch_length], static_cast<std::uint16_t>(meta.epoch.size()));
    store_le(&buffer[meta_at::cursor_length], static_cast<std::uint16_t>(meta.cursor.size()));

    filler fill{&buffer[meta_at::texts]};
    fill.put(meta.epoch);
    fill.put(meta.cursor);

    const auto bytes = std::span{buffer}.first(meta_at::texts + meta.epoch.size() + meta.cursor.size());
    seal(meta_key(), bytes);
    return {codec_error::none, bytes};
}

encoded encode(std::span<const std::byte> key, const tombstone &tombstone, record_buffer &buffer) noexcept
{
    if (!is_time(tombstone.deleted_at)) {
        return {codec_error::time, {}};
    }

    std::fill_n(buffer.begin(), tombstone_at::end, std::byte{0});
    buffer[version_at] = std::byte{format_version};
    buffer[tombstone_at::generation] = std::byte{tombstone.generation};
    buffer[tombstone_at::flags] = tombstone.revoked ? revoked_flag : std::byte{0};
    store_le(&buffer[tombstone_at::sequence], tombstone.sequence);
    store_le(&buffer[tombstone_at::deleted_at], tombstone.deleted_at);

    const auto bytes = std::span{buffer}.first(tombstone_at::end);
    seal(key, bytes);
    return {codec_error::none, bytes};
}

encoded encode(std::span<const std::byte> key, const early_revocation &revocation, record_buffer &buffer) noexcept
{
    if (!is_time(revocation.local_revoked_at)) {
        return {codec_error::time, {}};
    }

    std::fill_n(buffer.begin(), early_at::end, std::byte{0});
    buffer[version_at] = std::byte{format_version};
    buffer[early_at::flags] = revocation.denied ? denied_flag : std::byte{0};
    store_le(&buffer[early_at::local_revoked_at], revocation.local_revoked_at);

    const auto bytes = std::span{buffer}.first(early_at::end);
    seal(key, bytes);
    return {codec_error::none, bytes};
}

codec_error validate(const token_record &record) noexcept
{
    if (!is_id(record.id)) {
        return codec_error::id;
    }
    if (record.subject.empty() || record.subject.size() > max_subject_length || has_control(record.subject)) {
        return codec_error::subject;
    }
    if (record.name.size() > max_name_length || has_control(record.name)) {
        return codec_error::name;
    }
    if (!are_scopes(record.scopes)) {
        return codec_error::scopes;
    }
    if (!are_cidrs(record.cidrs)) {
        return codec_error::cidrs;
    }
    if (!claims_are_valid(record.claims)) {
        return codec_error::claims;
    }
    if (!is_time(record.issued_at) || !is_time(record.not_before) || !is_time(record.expires_at)
        || !is_time(record.revoked_at) || !is_time(record.local_revoked_at)) {
        return codec_error::time;
    }
    return codec_error::none;
}

bool has_control(std::string_view text) noexcept
{
    // Eight bytes at a time, whose top bits tell: of x - n if x < n, of x - 1 if x is 0, both only where x had none.
    constexpr std::uint64_t ones = ~std::uint64_t{0} / 0xff;
    constexpr std::uint64_t tops = ones * 0x80;
    const auto found = [](std::uint64_t eight) {
        const std::uint64_t deletes = eight ^ ones * 0x7f;
        return (((eight - ones * 0x20) & ~eight) | ((deletes - ones) & ~deletes)) & tops;
    };

    std::uint64_t any = 0;
    std::uint64_t eight = 0;
    for (; text.size() >= sizeof eight; text.remove_prefix(sizeof eight)) {
        std::memcpy(&eight, text.data(), sizeof eight);
        any |= found(eight);
    }
    if (!text.empty()) {
        eight = ones * ' ';
        std::memcpy(&eight, text.data(), text.size());
        any |= found(eight);
    }
    return any != 0;
}

bool is_id(std::string_view text) noexcept
{
    return !text.empty() && text.size() <= max_id_length && id_characters.has_all(text);
}

bool is_scope(std::string_view text) noexcept
{
    return !text.empty() && std::all_of(text.begin(), text.end(), is_scope_character);
}

bool is_claim_name(std::string_view text) noexcept
{
    return !text.empty() && text.size() <= max_claim_name_length && claim_name_characters.has_all(text);
}

token_claim take_claim(std::span<const std::byte> &claims) noexcept
{
    const auto name_length = std::to_integer<std::size_t>(claims[0]);
    const std::size_t value_length = load_le<std::uint16_t>(&claims[1]);

    cutter cut{claims.subspan(claim_header_length)};
    const token_claim result{cut.text(name_length), cut.text(value_length)};

    claims = claims.subspan(claim_header_length + name_length + value_length);
    return result;
}

bool append_claim(const token_claim &claim, record_buffer &buffer, std::size_t &length) noexcept
{
    const std::size_t needed = claim_header_length + claim.name.size() + claim.value.size();

    if (!is_claim_name(claim.name) || has_control(claim.value) || needed > buffer.size() - length) {
        return false;
    }

    buffer[length] = static_cast<std::byte>(claim.name.size());
    store_le(&buffer[length + 1], static_cast<std::uint16_t>(claim.value.size()));

    filler fill{&buffer[length + claim_header_length]};
    fill.put(claim.name);
    fill.put(claim.value);

    length += needed;
    return true;
}

}  // namespace pat
