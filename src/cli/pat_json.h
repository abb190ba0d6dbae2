#pragma once

#include "core/pat_address.h"
#include "core/pat_digest.h"
#include "core/pat_policy.h"
#include "core/pat_record.h"

#include "cli/pat_draft.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <simdjson.h>

/// Records as JSON, one object a line: docs/patctl.md, "RECORDS AS JSON LINES".
namespace pat::cli {

/// The longest line that is read: a record takes 4 KiB, and JSON can write a byte with six.
inline constexpr std::size_t max_line_length = 65536;

/// Reads objects. Throws bad_value for what is not JSON or not an object.
class json_parser {
public:
    json_parser();
    json_parser(const json_parser &) = delete;
    json_parser &operator=(const json_parser &) = delete;
    ~json_parser();

    /// At most `max_line_length`, and `SIMDJSON_PADDING` bytes behind `text` must be readable. The object holds until
    /// the next call.
    [[nodiscard]] simdjson::dom::object parse(std::string_view text);

private:
    simdjson::dom::parser parser_;
    simdjson::dom::document document_;  ///< with room for the longest line, so that it never moves
};

/// The highest number of a change: that of PostgreSQL's bigint.
inline constexpr std::uint64_t max_sequence = 9223372036854775807;

/// How an object names its token, and what else it may have.
enum class record_form : unsigned char {
    digest,     ///< "digest", 64 hexadecimal digits
    plaintext,  ///< "token", from which `hasher` makes the digest; the others don't need it
    change,     ///< "digest"; "op", which is left to the caller; and nothing that only this host can say
};

/// Fills `out` and returns its digest. Throws bad_value for fields that are unknown, missing, given twice, or wrong.
token_digest read_record(const simdjson::dom::object &object, record_form form, const token_hasher *hasher,
                         record_draft &out);

/// What an export of local revocations says of a token: the same fields as write_early_fields(), the "key_id"
/// of the store's pepper, which is empty if there is none, and an "id" for people. Throws bad_value as read_record()
/// does.
token_digest read_local_revocation(const simdjson::dom::object &object, early_revocation &out, std::string &key_id);

/// Values of fields. They throw bad_value.
[[nodiscard]] std::string_view read_text(const simdjson::dom::element &value);
[[nodiscard]] std::int64_t read_time(const simdjson::dom::element &value);
[[nodiscard]] std::uint64_t read_sequence(const simdjson::dom::element &value);

/// Appends to a text, in the one form that read_record() gives back byte for byte: fields in a fixed order, those
/// without a value left out.
void write_record(const token_digest &digest, const token_record &record, std::string &out);

/// What write_record() writes, without the braces.
void write_fields(const token_digest &digest, const token_record &record, std::string &out);

/// Those of its fields that say what the token may do and when.
void write_properties(const token_record &record, std::string &out);

/// The same fields of an early revocation.
void write_early_fields(const token_digest &digest, const early_revocation &revocation, std::string &out);

/// The name of a field, with a comma before it unless it is the first of its object.
void write_name(std::string_view name, std::string &out);

/// A string with its quotes. Control characters of Unicode are escaped, what is not UTF-8 becomes U+FFFD.
void write_string(std::string_view text, std::string &out);

/// Words that stand for values of the meta record.
[[nodiscard]] const char *word_for(digest_scheme scheme) noexcept;

/// Which pepper the digests of a store are made with; empty for none.
[[nodiscard]] std::string key_id_of(const meta_record &store);

[[nodiscard]] std::string to_hex(std::span<const std::byte> bytes);

/// Throws bad_value unless `text` is 64 hexadecimal digits.
[[nodiscard]] token_digest parse_digest(std::string_view text);

/// The address ranges of a record, in its order.
template <typename Visit>
void for_each_cidr(const token_record &record, const Visit &visit)
{
    for (auto rest = record.cidrs; !rest.empty();) {
        std::array<char, max_cidr_text_length> text;
        std::size_t length = 0;
        rest = format_cidr(rest, text, length);
        visit(std::string_view{text.data(), length});
    }
}

template <typename Visit>
void for_each_scope(const token_record &record, const Visit &visit)
{
    for (std::string_view rest = record.scopes; !rest.empty();) {
        visit(take_scope(rest));
    }
}

template <typename Visit>
void for_each_claim(const token_record &record, const Visit &visit)
{
    for (auto rest = record.claims; !rest.empty();) {
        visit(take_claim(rest));
    }
}

}  // namespace pat::cli
