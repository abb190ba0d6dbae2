#include "core/pat_record.h"

#include "core/pat_address.h"
#include "core/pat_bytes.h"
#include "core/pat_crc32c.h"
#include "core/pat_rules.h"

#include <algorithm>

namespace pat {

namespace {

constexpr std::array<std::byte, 8> meta_magic{std::byte{'a'}, std::byte{'u'}, std::byte{'t'}, std::byte{'h'},
                                              std::byte{'_'}, std::byte{'p'}, std::byte{'a'}, std::byte{'t'}};

constexpr std::array<std::byte, 1> the_meta_key{std::byte{'m'}};
constexpr std::byte token_tag{'t'};
constexpr std::byte tombstone_tag{'d'};
constexpr std::byte early_tag{'e'};

constexpr std::byte denied_flag{1};
constexpr std::byte revoked_flag{1};

/// Flags of a token record, each of which but the first has a field.
namespace token_flag {
constexpr unsigned denied = 1 << 0;
constexpr unsigned generation = 1 << 1;
constexpr unsigned sequence_low = 1 << 2;
constexpr unsigned sequence_high = 1 << 3;
constexpr unsigned issued_at = 1 << 4;
constexpr unsigned not_before = 1 << 5;
constexpr unsigned expires_at = 1 << 6;
constexpr unsigned revoked_at = 1 << 7;
constexpr unsigned local_revoked_at = 1 << 8;
constexpr unsigned name = 1 << 9;
constexpr unsigned scopes = 1 << 10;
constexpr unsigned cidrs = 1 << 11;
constexpr unsigned claims = 1 << 12;
}  // namespace token_flag

constexpr unsigned first_unknown_flag = token_flag::claims << 1;
constexpr std::size_t time_length = 5;
constexpr std::uint64_t four_gib = std::uint64_t{1} << 32;

constexpr std::size_t field_length(unsigned flag) noexcept
{
    switch (flag) {
    case token_flag::denied: return 0;
    case token_flag::generation:
    case token_flag::name: return 1;
    case token_flag::scopes:
    case token_flag::cidrs:
    case token_flag::claims: return 2;
    case token_flag::sequence_low:
    case token_flag::sequence_high: return 4;
    default: return time_length;
    }
}

/// The length of all fields that a byte of flags, which begins at bit `shift`, tells of.
consteval std::array<std::uint8_t, 256> make_lengths(unsigned shift) noexcept
{
    std::array<std::uint8_t, 256> result{};
    for (unsigned flags = 0; flags < result.size(); flags++) {
        std::size_t length = 0;
        for (unsigned bit = 0; bit < 8; bit++) {
            length += (flags >> bit & 1) != 0 ? field_length(1U << (bit + shift)) : 0;
        }
        result[flags] = static_cast<std::uint8_t>(length);
    }
    return result;
}

constexpr std::array lengths_of_low_flags = make_lengths(0);
constexpr std::array lengths_of_high_flags = make_lengths(8);

constexpr std::size_t fields_length(unsigned flags) noexcept
{
    return std::size_t{lengths_of_low_flags[flags & 0xff]} + lengths_of_high_flags[flags >> 8];
}

/// Offsets, as drawn in the header.
constexpr std::size_t checksum_at = 0;
constexpr std::size_t version_at = 4;

namespace token_at {
constexpr std::size_t id_length = 5;
constexpr std::size_t flags = 6;
constexpr std::size_t subject_length = 8;
constexpr std::size_t fields = 9;
}  // namespace token_at

namespace token_1_at {
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
}  // namespace token_1_at

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
constexpr std::size_t record_format = 69;
constexpr std::size_t zero = 70;
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
    return crc32c(key, value.subspan(version_at));
}

/// What all kinds of record have in common.
codec_error check_envelope(std::span<const std::byte> key, std::span<const std::byte> value, std::size_t header_length,
                           std::uint8_t newest) noexcept
{
    const auto version = value.size() > version_at ? std::to_integer<std::uint8_t>(value[version_at]) : std::uint8_t{0};

    if (value.size() < header_length) {
        return codec_error::too_short;
    }
    if (version > newest) {
        return codec_error::newer_version;
    }
    if (value.size() > max_record_length) {
        return codec_error::too_long;
    }
    if (load_le<std::uint32_t>(&value[checksum_at]) != checksum_of(key, value)) {
        return codec_error::checksum;
    }
    return version == 0 ? codec_error::inconsistent : codec_error::none;
}

bool is_zero(std::span<const std::byte> bytes) noexcept
{
    return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
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

/// How long the texts and lists of a token record are.
struct text_lengths {
    std::size_t id;
    std::size_t subject;
    std::size_t name;
    std::size_t scopes;
    std::size_t cidrs;
    std::size_t claims;

    [[nodiscard]] std::size_t sum() const noexcept { return id + subject + name + scopes + cidrs + claims; }
};

/// Takes the texts of a token record, which end it.
[[gnu::always_inline]] inline codec_error cut_texts(std::span<const std::byte> texts, const text_lengths &lengths,
                                                    token_record &out) noexcept
{
    if (lengths.sum() != texts.size() || lengths.id == 0 || lengths.id > max_id_length || lengths.subject == 0) {
        return codec_error::inconsistent;
    }

    cutter cut{texts};
    out.id = cut.text(lengths.id);
    out.subject = cut.text(lengths.subject);
    out.name = cut.text(lengths.name);
    out.scopes = cut.text(lengths.scopes);
    out.cidrs = cut.bytes(lengths.cidrs);
    out.claims = cut.bytes(lengths.claims);

    const bool has_whole_lists =
        (out.cidrs.empty() || are_cidrs(out.cidrs)) && (out.claims.empty() || are_claims(out.claims));
    return has_whole_lists ? codec_error::none : codec_error::inconsistent;
}

codec_error decode_1(std::span<const std::byte> value, token_record &out) noexcept
{
    using namespace token_1_at;

    if ((value[flags] & ~denied_flag) != std::byte{0}) {
        return codec_error::inconsistent;
    }

    out.format = first_format;
    out.sequence = load_le<std::uint64_t>(&value[sequence]);
    out.issued_at = load_le<std::int64_t>(&value[issued_at]);
    out.not_before = load_le<std::int64_t>(&value[not_before]);
    out.expires_at = load_le<std::int64_t>(&value[expires_at]);
    out.revoked_at = load_le<std::int64_t>(&value[revoked_at]);
    out.local_revoked_at = load_le<std::int64_t>(&value[local_revoked_at]);
    out.generation = load_le<std::uint8_t>(&value[generation]);
    out.denied = value[flags] == denied_flag;

    return cut_texts(value.subspan(texts),
                     {.id = load_le<std::uint8_t>(&value[id_length]),
                      .subject = load_le<std::uint8_t>(&value[subject_length]),
                      .name = load_le<std::uint8_t>(&value[name_length]),
                      .scopes = load_le<std::uint16_t>(&value[scopes_length]),
                      .cidrs = load_le<std::uint16_t>(&value[cidrs_length]),
                      .claims = load_le<std::uint16_t>(&value[claims_length])},
                     out);
}

/// The fields of a token record, of which each that is there moves the place of the next.
class field_reader {
public:
    field_reader(unsigned flags, const std::byte *at) noexcept : flags_{flags}, at_{at} {}

    [[nodiscard]] bool has_any(unsigned flags) const noexcept { return (flags_ & flags) != 0; }

    template <typename T>
    T number(unsigned flag) noexcept
    {
        if (!has_any(flag)) {
            return 0;
        }
        const T result = load_le<T>(at_);
        at_ += sizeof result;
        signs_ |= std::int64_t{result} - 1;
        return result;
    }

    std::int64_t time(unsigned flag) noexcept
    {
        if (!has_any(flag)) {
            return 0;
        }
        const auto result =
            static_cast<std::int64_t>(load_le<std::uint32_t>(at_) | load_le<std::uint8_t>(at_ + 4) * four_gib);
        at_ += time_length;
        signs_ |= (result - 1) | (max_time - result);
        return result;
    }

    /// Whether none of them was 0, and no time too late.
    [[nodiscard]] bool is_sound() const noexcept { return signs_ >= 0; }

private:
    unsigned flags_;
    const std::byte *at_;
    std::int64_t signs_ = 0;  ///< negative if any of the differences was, which takes no branch
};

codec_error decode_2(std::span<const std::byte> value, token_record &out) noexcept
{
    using namespace token_flag;

    const unsigned flags = load_le<std::uint16_t>(&value[token_at::flags]);
    if (flags >= first_unknown_flag) {
        return codec_error::inconsistent;
    }
    const std::size_t texts_at = token_at::fields + fields_length(flags);
    if (value.size() - texts_at > max_texts_length) {  // as it is, too, if the fields go past the end
        return codec_error::inconsistent;
    }

    field_reader fields{flags, value.data() + token_at::fields};
    out.format = newest_format;
    out.denied = fields.has_any(denied);

    // What few tokens have is asked for together.
    out.generation = 0;
    out.sequence = 0;
    if (fields.has_any(generation | sequence_low | sequence_high)) {
        out.generation = fields.number<std::uint8_t>(generation);
        out.sequence = fields.number<std::uint32_t>(sequence_low);
        out.sequence |= std::uint64_t{fields.number<std::uint32_t>(sequence_high)} << 32;
    }
    out.issued_at = fields.time(issued_at);
    out.not_before = fields.time(not_before);
    out.expires_at = fields.time(expires_at);
    out.revoked_at = 0;
    out.local_revoked_at = 0;
    if (fields.has_any(revoked_at | local_revoked_at)) {
        out.revoked_at = fields.time(revoked_at);
        out.local_revoked_at = fields.time(local_revoked_at);
    }

    text_lengths lengths{};
    lengths.id = load_le<std::uint8_t>(&value[token_at::id_length]);
    lengths.subject = load_le<std::uint8_t>(&value[token_at::subject_length]);
    lengths.name = fields.number<std::uint8_t>(name);
    lengths.scopes = fields.number<std::uint16_t>(scopes);
    if (fields.has_any(cidrs | claims)) {
        lengths.cidrs = fields.number<std::uint16_t>(cidrs);
        lengths.claims = fields.number<std::uint16_t>(claims);
    }
    return fields.is_sound() ? cut_texts(value.subspan(texts_at), lengths, out) : codec_error::inconsistent;
}

/// Writes the part of a record before its texts; returns where they begin.
std::size_t encode_header_1(const token_record &record, record_buffer &buffer) noexcept
{
    using namespace token_1_at;

    buffer[flags] = record.denied ? denied_flag : std::byte{0};
    buffer[generation] = std::byte{record.generation};
    buffer[id_length] = static_cast<std::byte>(record.id.size());
    buffer[subject_length] = static_cast<std::byte>(record.subject.size());
    buffer[name_length] = static_cast<std::byte>(record.name.size());
    store_le(&buffer[scopes_length], static_cast<std::uint16_t>(record.scopes.size()));
    store_le(&buffer[cidrs_length], static_cast<std::uint16_t>(record.cidrs.size()));
    store_le(&buffer[claims_length], static_cast<std::uint16_t>(record.claims.size()));
    store_le(&buffer[sequence], record.sequence);
    store_le(&buffer[issued_at], record.issued_at);
    store_le(&buffer[not_before], record.not_before);
    store_le(&buffer[expires_at], record.expires_at);
    store_le(&buffer[revoked_at], record.revoked_at);
    store_le(&buffer[local_revoked_at], record.local_revoked_at);
    return texts;
}

std::size_t encode_header_2(const token_record &record, record_buffer &buffer) noexcept
{
    unsigned flags = record.denied ? token_flag::denied : 0;
    std::size_t length = token_at::fields;

    const auto put = [&](unsigned flag, std::uint64_t value) {
        if (value != 0) {
            std::memcpy(&buffer[length], &value, field_length(flag));
            length += field_length(flag);
            flags |= flag;
        }
    };
    put(token_flag::generation, record.generation);
    put(token_flag::sequence_low, record.sequence & (four_gib - 1));
    put(token_flag::sequence_high, record.sequence >> 32);
    put(token_flag::issued_at, static_cast<std::uint64_t>(record.issued_at));
    put(token_flag::not_before, static_cast<std::uint64_t>(record.not_before));
    put(token_flag::expires_at, static_cast<std::uint64_t>(record.expires_at));
    put(token_flag::revoked_at, static_cast<std::uint64_t>(record.revoked_at));
    put(token_flag::local_revoked_at, static_cast<std::uint64_t>(record.local_revoked_at));
    put(token_flag::name, record.name.size());
    put(token_flag::scopes, record.scopes.size());
    put(token_flag::cidrs, record.cidrs.size());
    put(token_flag::claims, record.claims.size());

    buffer[token_at::id_length] = static_cast<std::byte>(record.id.size());
    buffer[token_at::subject_length] = static_cast<std::byte>(record.subject.size());
    store_le(&buffer[token_at::flags], static_cast<std::uint16_t>(flags));
    return length;
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
    case codec_error::too_long: return "the texts of the record are longer than 4032 bytes";
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
    const bool is_first = value.size() > version_at && value[version_at] == std::byte{first_format};
    const std::size_t least = is_first ? token_1_at::texts : token_at::fields;

    if (const codec_error error = check_envelope(key, value, least, newest_format); error != codec_error::none) {
        return error;
    }
    return is_first ? decode_1(value, out) : decode_2(value, out);
}

codec_error decode_meta(std::span<const std::byte> value, meta_record &out) noexcept
{
    if (const codec_error error = check_envelope(meta_key(), value, meta_at::texts, newest_format);
        error != codec_error::none) {
        return error;
    }

    const auto format = load_le<std::uint8_t>(&value[version_at]);
    const auto record_format = load_le<std::uint8_t>(&value[meta_at::record_format]);
    const auto scheme = static_cast<digest_scheme>(value[meta_at::scheme]);
    const auto state = static_cast<store_state>(value[meta_at::state]);
    const auto heartbeat = load_le<std::int64_t>(&value[meta_at::heartbeat]);
    const std::size_t epoch = load_le<std::uint16_t>(&value[meta_at::epoch_length]);
    const std::size_t cursor = load_le<std::uint16_t>(&value[meta_at::cursor_length]);

    if ((format == first_format ? record_format != 0 : record_format == 0 || record_format > format)
        || (scheme != digest_scheme::sha256 && scheme != digest_scheme::hmac_sha256) || state < store_state::empty
        || state > store_state::resync
        || !std::ranges::equal(value.subspan(meta_at::magic, meta_magic.size()), meta_magic)
        || !is_zero(value.subspan(meta_at::zero, meta_at::texts - meta_at::zero)) || !is_time(heartbeat)
        || epoch > max_epoch_length || cursor > max_cursor_length || meta_at::texts + epoch + cursor != value.size()) {
        return codec_error::inconsistent;
    }

    out.format = format;
    out.record_format = format == first_format ? first_format : record_format;
    out.scheme = scheme;
    out.state = state;
    std::ranges::copy(value.subspan(meta_at::key_id, out.key.size()), out.key.begin());
    out.heartbeat = heartbeat;
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
    if (const codec_error error = check_envelope(key, value, tombstone_at::end, first_format);
        error != codec_error::none) {
        return error;
    }
    const auto deleted_at = load_le<std::int64_t>(&value[tombstone_at::deleted_at]);
    if (value.size() != tombstone_at::end || (value[tombstone_at::flags] & ~revoked_flag) != std::byte{0}
        || value[tombstone_at::zero] != std::byte{0} || !is_time(deleted_at)) {
        return codec_error::inconsistent;
    }

    out.sequence = load_le<std::uint64_t>(&value[tombstone_at::sequence]);
    out.deleted_at = deleted_at;
    out.generation = load_le<std::uint8_t>(&value[tombstone_at::generation]);
    out.revoked = value[tombstone_at::flags] == revoked_flag;
    return codec_error::none;
}

codec_error decode(std::span<const std::byte> key, std::span<const std::byte> value, early_revocation &out) noexcept
{
    if (const codec_error error = check_envelope(key, value, early_at::end, first_format); error != codec_error::none) {
        return error;
    }
    const auto local_revoked_at = load_le<std::int64_t>(&value[early_at::local_revoked_at]);
    if (value.size() != early_at::end || (value[early_at::flags] & ~denied_flag) != std::byte{0}
        || !is_zero(value.subspan(early_at::zero, early_at::local_revoked_at - early_at::zero))
        || !is_time(local_revoked_at)) {
        return codec_error::inconsistent;
    }

    out.local_revoked_at = local_revoked_at;
    out.denied = value[early_at::flags] == denied_flag;
    return codec_error::none;
}

encoded encode(std::span<const std::byte> key, const token_record &record, record_buffer &buffer) noexcept
{
    if (const codec_error error = validate(record); error != codec_error::none) {
        return {error, {}};
    }

    const std::size_t texts_length = record.id.size() + record.subject.size() + record.name.size()
                                     + record.scopes.size() + record.cidrs.size() + record.claims.size();
    if (texts_length > max_texts_length) {
        return {codec_error::too_long, {}};
    }

    const std::size_t texts_at =
        record.format == first_format ? encode_header_1(record, buffer) : encode_header_2(record, buffer);
    buffer[version_at] = std::byte{record.format};

    filler fill{&buffer[texts_at]};
    fill.put(record.id);
    fill.put(record.subject);
    fill.put(record.name);
    fill.put(record.scopes);
    fill.put(record.cidrs);
    fill.put(record.claims);

    const auto bytes = std::span{buffer}.first(texts_at + texts_length);
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
    buffer[version_at] = std::byte{meta.format};
    buffer[meta_at::record_format] = meta.format == first_format ? std::byte{0} : std::byte{meta.record_format};
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
    buffer[version_at] = std::byte{first_format};
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
    buffer[version_at] = std::byte{first_format};
    buffer[early_at::flags] = revocation.denied ? denied_flag : std::byte{0};
    store_le(&buffer[early_at::local_revoked_at], revocation.local_revoked_at);

    const auto bytes = std::span{buffer}.first(early_at::end);
    seal(key, bytes);
    return {codec_error::none, bytes};
}

}  // namespace pat
