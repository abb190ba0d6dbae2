#pragma once

#include "core/pat_address.h"
#include "core/pat_digest.h"
#include "core/pat_policy.h"
#include "core/pat_record.h"

#include "cli/pat_draft.h"

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>

// Who reads fields includes simdjson.h, which is slow to compile.
namespace simdjson::dom {
class element;
class object;
}  // namespace simdjson::dom

/// Records as JSON, one object a line: docs/patctl.md, "RECORDS AS JSON LINES".
namespace pat::cli {

/// The longest line that is read: a record takes 4 KiB, and JSON can write a byte with six.
inline constexpr std::size_t max_line_length = 65536;

/// How many bytes behind a text must be readable, as simdjson reads ahead.
inline constexpr std::size_t json_padding = 64;

/// Reads objects. Throws bad_value if a text is not one.
class json_parser {
public:
    json_parser();
    json_parser(const json_parser &) = delete;
    json_parser &operator=(const json_parser &) = delete;
    ~json_parser();

    /// At most `max_line_length`, and `json_padding` bytes behind `text` must be readable. The object holds until the
    /// next call.
    [[nodiscard]] const simdjson::dom::object &parse(std::string_view text);

private:
    struct state;
    std::unique_ptr<state> state_;
};

/// The highest number of a change: that of PostgreSQL's bigint.
inline constexpr std::uint64_t max_sequence = 9223372036854775807;

/// How an object names its token, and which other fields it may have.
enum class record_form : unsigned char {
    digest,     ///< "digest", 64 hexadecimal digits
    plaintext,  ///< "token", from which `hasher` makes the digest; the others don't need it
    change,     ///< "digest"; "op", which the caller reads; and no field that only this host may set
};

/// Fills `out` and returns its digest. Throws bad_value for fields that are unknown, missing, given twice, or wrong.
token_digest read_record(const simdjson::dom::object &object, record_form form, const token_hasher *hasher,
                         record_draft &out);

/// A line of an export of local revocations: the same fields as add_early_fields(), the "key_id"
/// of the store's pepper, which is empty if there is none, and an "id" for people. Throws bad_value as read_record()
/// does.
token_digest read_local_revocation(const simdjson::dom::object &object, early_revocation &out, std::string &key_id);

/// Values of fields. They throw bad_value.
[[nodiscard]] std::string_view read_text(const simdjson::dom::element &value);
[[nodiscard]] std::int64_t read_time(const simdjson::dom::element &value);
[[nodiscard]] std::uint64_t read_sequence(const simdjson::dom::element &value);

/// Writes an object, field by field: `json_object{}.text("id", id).number("seq", 7).line()`.
class json_object {
public:
    /// Writes into `memory`, whose capacity is kept.
    explicit json_object(std::string memory = {}) : json_{std::move(memory)}
    {
        json_.reserve(most_records);
        json_ = '{';
    }

    /// Control characters of Unicode are escaped; what is not UTF-8 becomes U+FFFD.
    json_object &text(std::string_view name, std::string_view value);
    json_object &truth(std::string_view name, bool value) { return raw(name, value ? "true" : "false"); }
    json_object &null(std::string_view name) { return raw(name, "null"); }
    json_object &object(std::string_view name, json_object &&value) { return raw(name, value.end()); }

    template <std::integral Number>
    requires(!std::same_as<Number, bool>) json_object &number(std::string_view name, Number value)
    {
        return raw(name, fmt::format("{}", value));
    }

    /// Unix seconds; left out if 0.
    json_object &time(std::string_view name, std::int64_t time) { return time != 0 ? number(name, time) : *this; }

    /// An array of the strings for which `for_each` calls its argument.
    template <typename ForEach>
    json_object &list(std::string_view name, const ForEach &for_each)
    {
        write_name(name);
        char separator = '[';
        for_each([&](std::string_view item) {
            json_ += separator;
            write_string(item);
            separator = ',';
        });
        json_ += ']';
        return *this;
    }

    /// Ends the object, to which nothing can be added afterwards, and the line.
    [[nodiscard]] std::string line() { return end() + '\n'; }

private:
    json_object &raw(std::string_view name, std::string_view value);
    void write_name(std::string_view name);
    void write_string(std::string_view value);

    [[nodiscard]] std::string &&end()
    {
        json_ += '}';
        return std::move(json_);
    }

    static constexpr std::size_t most_records = 512;  ///< bytes, so that few objects are moved as they grow

    std::string json_;
};

/// Adds the fields of a record in the one form that read_record() gives back byte for byte: in a fixed order, those
/// without a value left out.
json_object &add_fields(const token_digest &digest, const token_record &record, json_object &out);

/// Adds those that say what the token may do and when: all but the digest.
json_object &add_properties(const token_record &record, json_object &out);

/// Adds the same fields of an early revocation.
json_object &add_early_fields(const token_digest &digest, const early_revocation &revocation, json_object &out);

/// Words that stand for values of the meta record.
[[nodiscard]] const char *word_for(digest_scheme scheme) noexcept;

/// The key id of the pepper that a store's digests are made with; empty for none.
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
