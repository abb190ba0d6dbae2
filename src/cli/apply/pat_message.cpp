#include "cli/apply/pat_message.h"

#include "cli/pat_failure.h"
#include "cli/pat_json.h"
#include "cli/pat_text.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include <simdjson.h>

namespace pat::cli {

namespace {

using simdjson::dom::element;
using simdjson::dom::object;

/// A field of a message other than put, and the function that reads it.
struct message_field {
    std::string_view name;
    bool is_required;
    void (*read)(const element &value, apply_message &out);
};

std::string read_short_text(const element &value, std::size_t most)
{
    const std::string_view text = read_text(value);
    if (text.size() > most) {
        throw bad_value{fmt::format("longer than {} bytes", most)};
    }
    return std::string{text};
}

constexpr message_field seq{"seq", true,
                            [](const element &value, apply_message &out) { out.sequence = read_sequence(value); }};
constexpr message_field the_digest{
    "digest", true, [](const element &value, apply_message &out) { out.digest = parse_digest(read_text(value)); }};
constexpr message_field revoked_at{"revoked_at", false,
                                   [](const element &value, apply_message &out) { out.time = read_time(value); }};
constexpr message_field heartbeat_at{"at", false,
                                     [](const element &value, apply_message &out) { out.time = read_time(value); }};
constexpr message_field cursor{"cursor", true, [](const element &value, apply_message &out) {
                                   out.cursor = read_short_text(value, max_cursor_length);
                               }};
constexpr message_field after{"after", false, [](const element &value, apply_message &out) {
                                  out.after = read_short_text(value, max_cursor_length);
                              }};
constexpr message_field epoch{"epoch", true, [](const element &value, apply_message &out) {
                                  out.epoch = read_short_text(value, max_epoch_length);
                              }};

void read_fields(const object &object, std::initializer_list<message_field> known, apply_message &out)
{
    std::vector<std::string_view> seen{"op"};

    for (const auto &[name, value] : object) {
        if (name == "op") {
            continue;
        }
        const auto *field = std::ranges::find(known, name, &message_field::name);
        if (field == known.end()) {
            throw bad_value{fmt::format("unknown field \"{}\"", printable(name.substr(0, 64)))};
        }
        if (std::ranges::find(seen, name) != seen.end()) {
            throw bad_value{fmt::format("{}: given twice", name)};
        }
        seen.push_back(name);
        if (field->is_required || !value.is_null()) {
            with_name(std::string{name}.c_str(), [&, &value = value] { field->read(value, out); });
        }
    }

    for (const message_field &known_field : known) {
        if (known_field.is_required && std::ranges::find(seen, known_field.name) == seen.end()) {
            throw bad_value{fmt::format("no field \"{}\"", known_field.name)};
        }
    }
}

void read_put(const object &object, apply_message &out)
{
    out.digest = read_record(object, record_form::change, nullptr, out.token);

    if (element value; object.at_key("seq").get(value) == simdjson::SUCCESS && !value.is_null()) {
        out.sequence = out.token.sequence;
    }
}

struct operation_name {
    std::string_view name;
    message_kind kind;
};

constexpr operation_name operations[] = {
    {"put", message_kind::put},
    {"revoke", message_kind::revoke},
    {"delete", message_kind::remove},
    {"commit", message_kind::commit},
    {"heartbeat", message_kind::heartbeat},
    {"snapshot_begin", message_kind::snapshot_begin},
    {"snapshot_end", message_kind::snapshot_end},
};

message_kind read_operation(const object &object)
{
    std::optional<std::string_view> name;
    for (const auto &[key, value] : object) {
        if (key == "op") {
            if (name) {
                throw bad_value{"op: given twice"};
            }
            name = with_name("op", [&, &value = value] { return read_text(value); });
        }
    }
    if (!name) {
        throw bad_value{"no field \"op\""};
    }

    const auto *found = std::ranges::find(operations, *name, &operation_name::name);
    if (found == std::end(operations)) {
        throw bad_value{fmt::format("unknown op \"{}\"", printable(name->substr(0, 64)))};
    }
    return found->kind;
}

/// What JSON has between its parts (RFC 8259, section 2), within a line.
constexpr std::string_view blanks = " \t\r";

/// The text behind the colon that follows a name; nothing without a colon.
std::optional<std::string_view> value_after(std::string_view text)
{
    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    if (!text.starts_with(':')) {
        return std::nullopt;
    }
    text.remove_prefix(1);
    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    return text;
}

/// Follows the brackets of a line that is not JSON: text within a value that is an object or an array says nothing
/// about the token of the line. Where brackets do not match, text counts as being outside, so that no revocation is
/// missed.
class nesting {
public:
    void pass(char c) noexcept
    {
        if (c == '[' || (c == '{' && (depth_ > 0 || last_ == ':'))) {
            depth_++;
        } else if ((c == ']' || c == '}') && depth_ > 0) {
            depth_--;
        }
        last_ = blanks.find(c) != std::string_view::npos ? last_ : c;
    }

    [[nodiscard]] bool is_inside_a_value() const noexcept { return depth_ > 0; }

private:
    std::size_t depth_ = 0;
    char last_ = 0;  ///< that is not blank
};

/// The values of a field in text that is not valid JSON, except within other values.
std::vector<std::string_view> fields_of(std::string_view text, std::string_view name)
{
    std::vector<std::string_view> found;
    nesting around;
    while (!text.empty()) {
        const char first = text.front();
        text.remove_prefix(1);
        around.pass(first);
        if (first != '"') {
            continue;
        }

        std::size_t end = 0;
        while (end < text.size() && text[end] != '"') {
            end += text[end] == '\\' ? 2 : 1;
        }
        const bool is_name = text.substr(0, end) == name;
        text.remove_prefix(std::min(end + 1, text.size()));
        if (const auto value = value_after(text); value && is_name && !around.is_inside_a_value()) {
            found.push_back(*value);
        }
    }
    return found;
}

/// The same for text with missing quotes, in which strings can't be told from the rest.
std::vector<std::string_view> names_in(std::string_view text, std::string_view name)
{
    const std::string quoted = fmt::format("\"{}\"", name);

    std::vector<std::string_view> found;
    nesting around;
    for (; !text.empty(); text.remove_prefix(1)) {
        if (text.starts_with(quoted) && !around.is_inside_a_value()) {
            if (const auto value = value_after(text.substr(quoted.size()))) {
                found.push_back(*value);
            }
        }
        around.pass(text.front());
    }
    return found;
}

std::optional<token_digest> try_digest(std::string_view text)
{
    try {
        return parse_digest(text);
    } catch (const bad_value &) {
        return std::nullopt;
    }
}

}  // namespace

apply_message read_message(const object &object)
{
    apply_message result;
    result.kind = read_operation(object);

    switch (result.kind) {
    case message_kind::put: read_put(object, result); break;
    case message_kind::revoke: read_fields(object, {seq, the_digest, revoked_at}, result); break;
    case message_kind::remove: read_fields(object, {seq, the_digest}, result); break;
    case message_kind::commit: read_fields(object, {cursor, after}, result); break;
    case message_kind::heartbeat: read_fields(object, {heartbeat_at}, result); break;
    case message_kind::snapshot_begin: read_fields(object, {epoch, seq}, result); break;
    case message_kind::snapshot_end: read_fields(object, {cursor, heartbeat_at}, result); break;
    }
    return result;
}

line_hint read_hint(const object &object)
{
    line_hint result;
    std::string_view op;
    result.begins_snapshot = object.at_key("op").get(op) == simdjson::SUCCESS && op == "snapshot_begin";

    int sequences = 0;
    for (const auto &[name, value] : object) {
        std::string_view text;
        std::uint64_t number = 0;

        if (name == "seq" && ++sequences == 1 && value.get(number) == simdjson::SUCCESS && number <= max_sequence) {
            result.sequence = number;
        } else if (value.get(text) != simdjson::SUCCESS) {
            continue;
        } else if (name == "id" && text.size() <= max_id_length) {
            result.id = printable(text);
        } else if (name == "digest") {
            if (const auto digest = try_digest(text)) {
                result.digests.push_back(*digest);
            }
        }
    }
    if (sequences > 1) {
        result.sequence.reset();
    }
    return result;
}

line_hint read_hint(std::string_view text)
{
    constexpr std::size_t digits = 2 * digest_length;

    line_hint result;
    for (const auto find : {fields_of, names_in}) {
        for (const std::string_view value : find(text, "digest")) {
            if (value.size() > digits && value.front() == '"') {
                if (const auto digest = try_digest(value.substr(1, digits))) {
                    result.digests.push_back(*digest);
                }
            }
        }

        // Ignore a number that may have been cut off, and one of several.
        result.sequence.reset();
        if (const auto sequences = find(text, "seq"); sequences.size() == 1) {
            const std::string_view value = sequences.front();
            const char *end = value.data() + value.size();
            std::uint64_t number = 0;
            const auto [stopped, error] = std::from_chars(value.data(), end, number);
            if (error == std::errc{} && stopped != end && (*stopped == ',' || *stopped == '}')
                && number <= max_sequence) {
                result.sequence = number;
            }
        }
        if (!result.digests.empty()) {
            break;
        }
    }
    return result;
}

}  // namespace pat::cli
