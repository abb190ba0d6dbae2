/// Lines of "patctl apply". Input: a line.
///
/// A record that is accepted can be stored, and written as JSON again. Of a line that is rejected or cut off, patctl
/// still finds the token, which it denies: the line may have been its revocation.

#include "cli/apply/pat_message.h"
#include "cli/pat_failure.h"
#include "core/pat_rules.h"
#include "pat_fuzz.h"
#include "pat_json_line.h"
#include "pat_record_json.h"

#include <algorithm>
#include <optional>

using namespace pat;

namespace {

bool names(const cli::line_hint &hint, const token_digest &digest)
{
    return std::ranges::find(hint.digests, digest) != hint.digests.end();
}

bool has_digest(cli::message_kind kind)
{
    return kind == cli::message_kind::put || kind == cli::message_kind::revoke || kind == cli::message_kind::remove;
}

void try_message(std::string_view line, const cli::apply_message &message)
{
    using enum cli::message_kind;

    expect(is_time(message.time) && message.cursor.size() <= max_cursor_length
           && message.epoch.size() <= max_epoch_length);
    expect(!message.after || message.after->size() <= max_cursor_length);
    expect(message.sequence.has_value() || message.kind == put || !has_digest(message.kind));
    expect(message.sequence.value_or(0) <= cli::max_sequence);
    if (message.kind == put) {
        expect(message.token.local_revoked_at == 0 && !message.token.denied);
        (void) fuzz::round_trip(message.digest, message.token);
    }

    // The same line without its end is not JSON.
    if (has_digest(message.kind) && line.find('\\') == std::string_view::npos) {
        const std::string_view cut = line.substr(0, line.rfind('}'));
        expect(names(cli::read_hint(cut), message.digest));
    }
}

void try_line(std::string_view line)
{
    const fuzz::padded_text padded{line};
    const simdjson::dom::object *object = nullptr;
    std::optional<cli::apply_message> message;
    try {
        object = &fuzz::json_parser().parse(padded.text());
        message = cli::read_message(*object);
    } catch (const cli::bad_value &) {
    }

    if (object == nullptr) {
        (void) cli::read_hint(padded.text());
        return;
    }
    const cli::line_hint hint = cli::read_hint(*object);
    expect(hint.sequence.value_or(0) <= cli::max_sequence);
    if (message) {
        expect(!has_digest(message->kind) || (names(hint, message->digest) && hint.digests.size() == 1));
        expect(hint.begins_snapshot == (message->kind == cli::message_kind::snapshot_begin));
        try_message(line, *message);
    }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    try_line(fuzz::input{data, size}.rest());
    return 0;
}
