#include "cli/pat_json.h"

#include "core/pat_token.h"

#include "cli/pat_failure.h"
#include "cli/pat_text.h"
#include "cli/pat_time.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <new>
#include <optional>
#include <vector>

#include <openssl/crypto.h>
#include <simdjson.h>

namespace pat::cli {

namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

constexpr std::string_view hex_digits = "0123456789abcdef";

int hex_value(char c)
{
    const std::size_t value = hex_digits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c | 0x20) : c);
    return value == std::string_view::npos ? -1 : static_cast<int>(value);
}

template <typename Visit>
void for_each_text(const element &value, const Visit &visit)
{
    simdjson::dom::array array;
    if (value.get(array) != simdjson::SUCCESS) {
        throw bad_value{"not an array"};
    }
    for (const element item : array) {
        visit(read_text(item));
    }
}

void read_claims(const element &value, record_draft &out)
{
    simdjson::dom::object object;
    if (value.get(object) != simdjson::SUCCESS) {
        throw bad_value{"not an object"};
    }
    for (const auto &[name, text] : object) {
        out.add_claim({name, read_text(text)});
    }
}

bool read_truth(const element &value)
{
    bool truth = false;
    if (value.get(truth) != simdjson::SUCCESS) {
        throw bad_value{"neither true nor false"};
    }
    return truth;
}

/// A field of a record, and the function that reads it.
struct field {
    const char *name;
    bool may_be_null;
    bool is_for_sources;  ///< a change may set it
    void (*read)(const element &value, record_draft &out);
};

constexpr field fields[] = {
    {"id", false, true, [](const element &value, record_draft &out) { out.id = read_text(value); }},
    {"subject", false, true, [](const element &value, record_draft &out) { out.subject = read_text(value); }},
    {"name", true, true, [](const element &value, record_draft &out) { out.name = trim_blanks(read_text(value)); }},
    {"scopes", true, true,
     [](const element &value, record_draft &out) { for_each_text(value, [&](auto text) { out.add_scope(text); }); }},
    {"cidrs", true, true,
     [](const element &value, record_draft &out) { for_each_text(value, [&](auto text) { out.add_cidr(text); }); }},
    {"issued_at", true, true, [](const element &value, record_draft &out) { out.issued_at = read_time(value); }},
    {"not_before", true, true, [](const element &value, record_draft &out) { out.not_before = read_time(value); }},
    {"expires_at", true, true, [](const element &value, record_draft &out) { out.expires_at = read_time(value); }},
    {"revoked_at", true, true, [](const element &value, record_draft &out) { out.revoked_at = read_time(value); }},
    {"local_revoked_at", true, false,
     [](const element &value, record_draft &out) { out.local_revoked_at = read_time(value); }},
    {"denied", true, false, [](const element &value, record_draft &out) { out.denied = read_truth(value); }},
    {"claims", true, true, read_claims},
    {"seq", true, true, [](const element &value, record_draft &out) { out.sequence = read_sequence(value); }},
};

constexpr std::size_t token_field = std::size(fields);

std::size_t find_field(std::string_view name)
{
    for (std::size_t i = 0; i < std::size(fields); i++) {
        if (name == fields[i].name) {
            return i;
        }
    }
    if (name == "digest" || name == "token") {
        return token_field;
    }
    throw bad_value{fmt::format("unknown field \"{}\"", printable(name.substr(0, 64)))};
}

token_digest read_token_field(std::string_view name, const element &value, record_form form, const token_hasher *hasher)
{
    if (form != record_form::plaintext) {
        if (name == "token") {
            throw bad_value{"only \"import --plaintext\" takes tokens: give the \"digest\" instead"};
        }
        return parse_digest(read_text(value));
    }

    if (name == "digest") {
        throw bad_value{"\"import --plaintext\" takes tokens, not digests: give the \"token\" instead"};
    }
    const std::string_view token = read_text(value);
    if (!is_token(token)) {
        throw bad_value{"not 16 to 512 characters of a b64token (RFC 6750)"};
    }
    return (*hasher)(token);
}

}  // namespace

static_assert(json_padding >= simdjson::SIMDJSON_PADDING);

struct json_parser::state {
    simdjson::dom::parser parser;
    simdjson::dom::document document;  ///< with room for the longest line, so that it never moves
    simdjson::dom::object object;
};

json_parser::json_parser() : state_{std::make_unique<state>()}
{
    if (state_->parser.allocate(max_line_length) != simdjson::SUCCESS
        || state_->document.allocate(max_line_length) != simdjson::SUCCESS) {
        throw std::bad_alloc{};
    }
}

json_parser::~json_parser()
{
    // Strings are copied there, and one of them may have been a token. There is room for five thirds of a line.
    OPENSSL_cleanse(state_->document.string_buf.get(), 5 * max_line_length / 3);
}

const simdjson::dom::object &json_parser::parse(std::string_view text)
{
    element value;
    const auto error = state_->parser.parse_into_document(state_->document, text.data(), text.size(), false).get(value);
    if (error != simdjson::SUCCESS) {
        throw bad_value{fmt::format("not JSON: {}", simdjson::error_message(error))};
    }

    if (value.get(state_->object) != simdjson::SUCCESS) {
        throw bad_value{"not a JSON object"};
    }
    return state_->object;
}

std::string_view read_text(const element &value)
{
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) {
        throw bad_value{"not a string"};
    }
    return text;
}

std::int64_t read_time(const element &value)
{
    std::int64_t seconds = 0;
    switch (value.type()) {
    case element_type::STRING: return parse_time(read_text(value));
    case element_type::INT64:
    case element_type::UINT64:
        if (value.get(seconds) != simdjson::SUCCESS) {
            throw bad_value{std::string{message(codec_error::time)}};
        }
        return parse_time(fmt::format("{}", seconds));
    default: throw bad_value{"neither Unix seconds nor a string with a date and time"};
    }
}

std::uint64_t read_sequence(const element &value)
{
    std::uint64_t number = 0;
    if (value.get(number) != simdjson::SUCCESS || number > max_sequence) {
        throw bad_value{fmt::format("not a whole number from 0 to {}", max_sequence)};
    }
    return number;
}

token_digest read_record(const simdjson::dom::object &object, record_form form, const token_hasher *hasher,
                         record_draft &out)
{
    token_digest result{};
    std::array<bool, std::size(fields) + 1> seen{};

    for (const auto &[name, value] : object) {
        if (form == record_form::change && name == "op") {
            continue;
        }

        const std::size_t number = find_field(name);
        if (form == record_form::change && number != token_field && !fields[number].is_for_sources) {
            throw bad_value{fmt::format("{}: a source may not set this field", name)};
        }
        if (seen[number]) {
            throw bad_value{fmt::format("{}: given twice", name)};
        }
        seen[number] = true;

        with_name(std::string{name}.c_str(), [&, &name = name, &value = value] {
            if (number == token_field) {
                result = read_token_field(name, value, form, hasher);
            } else if (!fields[number].may_be_null || !value.is_null()) {
                fields[number].read(value, out);
            }
        });
    }

    if (!seen[token_field]) {
        throw bad_value{form == record_form::plaintext ? "no field \"token\"" : "no field \"digest\""};
    }
    for (const char *required : {"id", "subject"}) {
        if (!seen[find_field(required)]) {
            throw bad_value{fmt::format("no field \"{}\"", required)};
        }
    }
    return result;
}

token_digest read_local_revocation(const simdjson::dom::object &object, early_revocation &out, std::string &key_id)
{
    std::optional<token_digest> digest;
    std::vector<std::string_view> seen;

    for (const auto &[name, value] : object) {
        if (std::ranges::find(seen, name) != seen.end()) {
            throw bad_value{fmt::format("{}: given twice", printable(name.substr(0, 64)))};
        }
        seen.push_back(name);

        with_name(printable(name.substr(0, 64)).c_str(), [&, &name = name, &value = value] {
            if (name == "digest") {
                digest = parse_digest(read_text(value));
            } else if (name == "local_revoked_at") {
                out.local_revoked_at = read_time(value);
            } else if (name == "denied") {
                out.denied = read_truth(value);
            } else if (name == "key_id") {
                key_id = read_text(value);
            } else if (name != "id") {
                throw bad_value{"not a field of an export of local revocations"};
            }
        });
    }

    if (!digest) {
        throw bad_value{"no field \"digest\""};
    }
    if (out.local_revoked_at == 0 && !out.denied) {
        throw bad_value{"neither a \"local_revoked_at\" nor a true \"denied\""};
    }
    return *digest;
}

json_object &json_object::text(std::string_view name, std::string_view value)
{
    write_name(name);
    write_string(value);
    return *this;
}

json_object &json_object::raw(std::string_view name, std::string_view value)
{
    write_name(name);
    json_ += value;
    return *this;
}

void json_object::write_name(std::string_view name)
{
    if (json_.size() > 1) {
        json_ += ',';
    }
    json_ += '"';
    json_ += name;
    json_ += "\":";
}

void json_object::write_string(std::string_view value)
{
    json_ += '"';
    while (!value.empty()) {
        const char32_t character = take_character(value);
        if (character == '"' || character == '\\') {
            json_ += '\\';
            json_ += static_cast<char>(character);
        } else if (character < 0x20 || (character >= 0x7f && character < 0xa0)) {
            json_ += fmt::format("\\u{:04x}", static_cast<unsigned>(character));
        } else {
            append_character(character, json_);
        }
    }
    json_ += '"';
}

json_object &add_properties(const token_record &record, json_object &out)
{
    out.text("id", record.id).text("subject", record.subject);
    if (!record.name.empty()) {
        out.text("name", record.name);
    }
    if (!record.scopes.empty()) {
        out.list("scopes", [&](const auto &visit) { for_each_scope(record, visit); });
    }
    if (!record.cidrs.empty()) {
        out.list("cidrs", [&](const auto &visit) { for_each_cidr(record, visit); });
    }
    out.time("issued_at", record.issued_at)
        .time("not_before", record.not_before)
        .time("expires_at", record.expires_at)
        .time("revoked_at", record.revoked_at)
        .time("local_revoked_at", record.local_revoked_at);
    if (record.denied) {
        out.truth("denied", true);
    }
    if (!record.claims.empty()) {
        json_object claims;
        for_each_claim(record, [&](const token_claim &claim) { claims.text(claim.name, claim.value); });
        out.object("claims", std::move(claims));
    }
    if (record.sequence != 0) {
        out.number("seq", record.sequence);
    }
    return out;
}

json_object &add_fields(const token_digest &digest, const token_record &record, json_object &out)
{
    return add_properties(record, out.text("digest", to_hex(digest)));
}

json_object &add_early_fields(const token_digest &digest, const early_revocation &revocation, json_object &out)
{
    out.text("digest", to_hex(digest)).time("local_revoked_at", revocation.local_revoked_at);
    if (revocation.denied) {
        out.truth("denied", true);
    }
    return out;
}

const char *word_for(digest_scheme scheme) noexcept
{
    switch (scheme) {
    case digest_scheme::sha256: return "sha256";
    case digest_scheme::hmac_sha256: return "hmac-sha256";
    }
    return "unknown";
}

std::string key_id_of(const meta_record &store)
{
    return store.scheme == digest_scheme::hmac_sha256 ? to_hex(store.key) : std::string{};
}

std::string to_hex(std::span<const std::byte> bytes)
{
    std::string text;
    text.reserve(2 * bytes.size());
    for (const std::byte byte : bytes) {
        text += hex_digits[std::to_integer<std::size_t>(byte >> 4)];
        text += hex_digits[std::to_integer<std::size_t>(byte & std::byte{15})];
    }
    return text;
}

token_digest parse_digest(std::string_view text)
{
    token_digest result;
    bool good = text.size() == 2 * result.size();
    for (std::size_t i = 0; good && i < result.size(); i++) {
        const int high = hex_value(text[2 * i]);
        const int low = hex_value(text[2 * i + 1]);
        good = high >= 0 && low >= 0;
        result[i] = static_cast<std::byte>(high << 4 | low);
    }
    if (!good) {
        throw bad_value{"a digest has 64 hexadecimal digits"};
    }
    return result;
}

}  // namespace pat::cli
