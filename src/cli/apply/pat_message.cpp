#include "cli/apply/pat_message.h"

#include "cli/pat_failure.h"
#include "cli/pat_json.h"
#include "cli/pat_text.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

namespace pat::cli {

namespace {

using simdjson::dom::element;
using simdjson::dom::object;

/// A field of a message that is not a put, and what reads it.
struct field {
    std::string_view name;
    bool is_required;
    void (*read)(const element &value, message &out);
};

std::string read_short_text(const element &value, std::size_t most)
{
    const std::string_view text = read_text(value);
    if (text.size() > most) {
        throw bad_value{"longer than " + std::to_string(most) + " bytes"};
    }
    return std::string{text};
}

constexpr field seq{"seq", true, [](const element &value, message &out) { out.sequence = read_sequence(value); }};
constexpr field the_digest{"digest", true,
                           [](const element &value, message &out) { out.of = parse_digest(read_text(value)); }};
constexpr field revoked_at{"revoked_at", false,
                           [](const element &value, message &out) { out.time = read_time(value); }};
constexpr field at{"at", false, [](const element &value, message &out) { out.time = read_time(value); }};
constexpr field cursor{
    "cursor", true, [](const element &value, message &out) { out.cursor = read_short_text(value, max_cursor_length); }};
constexpr field after{
    "after", false, [](const element &value, message &out) { out.after = read_short_text(value, max_cursor_length); }};
constexpr field epoch{"epoch", true,
                      [](const element &value, message &out) { out.epoch = read_short_text(value, max_epoch_length); }};

void read_fields(const object &from, std::initializer_list<field> known, message &out)
{
    std::vector<std::string_view> seen{"op"};

    for (const auto &[name, value] : from) {
        if (name == "op") {
            continue;
        }
        const auto *which = std::ranges::find(known, name, &field::name);
        if (which == known.end()) {
            throw bad_value{"unknown field \"" + printable(name.substr(0, 64)) + '"'};
        }
        if (std::ranges::find(seen, name) != seen.end()) {
            throw bad_value{std::string{name} + ": given twice"};
        }
        seen.push_back(name);
        if (which->is_required || !value.is_null()) {
            with_name(std::string{name}.c_str(), [&, &value = value] { which->read(value, out); });
        }
    }

    for (const field &one : known) {
        if (one.is_required && std::ranges::find(seen, one.name) == seen.end()) {
            throw bad_value{"no field \"" + std::string{one.name} + '"'};
        }
    }
}

void read_put(const object &from, message &out)
{
    out.of = read_record(from, record_form::change, nullptr, out.token);

    if (element value; from.at_key("seq").get(value) == simdjson::SUCCESS && !value.is_null()) {
        out.sequence = out.token.sequence;
    }
}

struct operation_name {
    std::string_view name;
    operation is;
};

constexpr operation_name operations[] = {
    {"put", operation::put},
    {"revoke", operation::revoke},
    {"delete", operation::remove},
    {"commit", operation::commit},
    {"heartbeat", operation::heartbeat},
    {"snapshot_begin", operation::snapshot_begin},
    {"snapshot_end", operation::snapshot_end},
};

operation read_operation(const object &from)
{
    std::optional<std::string_view> name;
    for (const auto &[key, value] : from) {
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
        throw bad_value{"unknown op \"" + printable(name->substr(0, 64)) + '"'};
    }
    return found->is;
}

/// What follows the colon behind a name, if there is one.
std::optional<std::string_view> value_after(std::string_view text)
{
    constexpr std::string_view blanks = " \t";

    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    if (!text.starts_with(':')) {
        return std::nullopt;
    }
    text.remove_prefix(1);
    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    return text;
}

/// Follows the braces of a line that is not JSON: what a value opens, and all within that, belongs to the value, and
/// says nothing about the token of the line. What does not add up counts as being outside, so that a revocation is not
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
        last_ = c == ' ' || c == '\t' ? last_ : c;
    }

    [[nodiscard]] bool is_inside_a_value() const noexcept { return depth_ > 0; }

private:
    std::size_t depth_ = 0;
    char last_ = 0;  ///< that is not blank
};

/// The values of a field in text that is not JSON as a whole, but for those in values.
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

/// The same where quotes are missing, so that it is not certain what is a string.
std::vector<std::string_view> names_in(std::string_view text, std::string_view name)
{
    const std::string quoted = '"' + std::string{name} + '"';

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

std::optional<digest> try_digest(std::string_view text)
{
    try {
        return parse_digest(text);
    } catch (const bad_value &) {
        return std::nullopt;
    }
}

}  // namespace

message read_message(const object &from)
{
    message result;
    result.is = read_operation(from);

    switch (result.is) {
    case operation::put: read_put(from, result); break;
    case operation::revoke: read_fields(from, {seq, the_digest, revoked_at}, result); break;
    case operation::remove: read_fields(from, {seq, the_digest}, result); break;
    case operation::commit: read_fields(from, {cursor, after}, result); break;
    case operation::heartbeat: read_fields(from, {at}, result); break;
    case operation::snapshot_begin: read_fields(from, {epoch, seq}, result); break;
    case operation::snapshot_end: read_fields(from, {cursor, at}, result); break;
    }
    return result;
}

hint read_hint(const object &from)
{
    hint result;
    int sequences = 0;
    for (const auto &[name, value] : from) {
        std::string_view text;
        std::uint64_t number = 0;

        if (name == "seq" && ++sequences == 1 && value.get(number) == simdjson::SUCCESS && number <= max_sequence) {
            result.sequence = number;
        } else if (value.get(text) != simdjson::SUCCESS) {
            continue;
        } else if (name == "id" && text.size() <= max_id_length) {
            result.id = printable(text);
        } else if (name == "digest") {
            if (const auto of = try_digest(text)) {
                result.digests.push_back(*of);
            }
        }
    }
    if (sequences > 1) {
        result.sequence.reset();
    }
    return result;
}

hint read_hint(std::string_view text)
{
    constexpr std::size_t digits = 2 * digest_length;

    hint result;
    for (const auto find : {fields_of, names_in}) {
        for (const std::string_view value : find(text, "digest")) {
            if (value.size() > digits && value.front() == '"') {
                if (const auto of = try_digest(value.substr(1, digits))) {
                    result.digests.push_back(*of);
                }
            }
        }

        // A number that may have been cut off, or that is one of several, says nothing.
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
