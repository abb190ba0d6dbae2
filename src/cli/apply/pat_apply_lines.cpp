#include "cli/apply/pat_applier.h"

namespace pat::cli {

namespace {

/// Lines that are read at a time: at least as many as a pipe holds.
constexpr std::size_t max_lines = 10000;

/// The most that is kept before a commit, and that a transaction writes, so that it takes a fraction of a second.
constexpr std::size_t max_changes = 20000;
constexpr std::size_t max_records_bytes = std::size_t{8} << 20;

/// A row of a snapshot that was rejected. It decides nothing about its token.
class stray_row : public bad_value {
public:
    using bad_value::bad_value;
};

std::uint64_t need_sequence(const apply_message &message)
{
    if (!message.sequence || *message.sequence == 0) {
        throw bad_value{"seq: a change needs a number of 1 or higher"};
    }
    return *message.sequence;
}

}  // namespace

void applier::read_lines()
{
    bool goes_on = !has_ended_ && (!merging_ || lines_.is_waiting());
    for (std::size_t count = 1; goes_on; count++) {
        input_line line;
        has_ended_ = !lines_.next(line);
        if (has_ended_) {
            return;
        }
        if (!line.is_complete) {
            // The writer was cut off, so the line decides nothing about its token.
            has_ended_ = true;
            is_cut_off_ = true;
            return;
        }
        take(line);
        goes_on = count < max_lines && !is_full() && lines_.is_waiting();
    }
}

void applier::take(const input_line &line)
{
    if (!line.too_long && line.text.find_first_not_of(" \t") == std::string_view::npos) {
        return;
    }

    const simdjson::dom::object *object = nullptr;
    try {
        if (line.too_long) {
            throw bad_value{fmt::format("longer than {} bytes", max_line_length)};
        }
        object = &parser_.parse(line.text);
        act_on(line.number, read_message(*object));
    } catch (const stray_row &bad) {
        reject(line.number, bad.what(), {});
    } catch (const held_back &bad) {
        reject(line.number, bad.what(), {}, true);
        arriving_.reset();
        is_stray_ = true;
    } catch (const bad_value &bad) {
        const line_hint hint = object != nullptr ? read_hint(*object) : read_hint(line.text);
        reject(line.number, bad.what(), hint);
        if (hint.begins_snapshot) {
            arriving_.reset();
            is_stray_ = true;
        }
    }
}

void applier::act_on(std::uint64_t number, const apply_message &message)
{
    switch (message.kind) {
    case message_kind::put: take_put(message); break;
    case message_kind::revoke: take_change(change_kind::revoke, message); break;
    case message_kind::remove: take_change(change_kind::remove, message); break;
    case message_kind::commit: take_commit(number, message); break;
    case message_kind::heartbeat:
        requests_.push_back({message.kind, number, committed_, 0, {}, has_gap_ ? 0 : not_after_now(message.time)});
        break;
    case message_kind::snapshot_begin: begin_snapshot(number, message); break;
    case message_kind::snapshot_end: end_snapshot(number, message); break;
    }
}

void applier::take_put(const apply_message &message)
{
    record_buffer buffer;
    const encoded result = encode(make_token_key(message.digest), message.token.view(), buffer);
    if (result.error != codec_error::none) {
        throw bad_value{std::string{pat::message(result.error)}};
    }

    if (is_of_snapshot(message.sequence)) {
        arriving_->add(message.digest, message.token.sequence, result.bytes);
        return;
    }
    if (is_stray_ && message.token.revoked_at == 0) {
        throw stray_row{"the snapshot to which the row may belong was rejected"};
    }
    batch_.add({change_kind::put, message.token.revoked_at != 0, message.digest, need_sequence(message), 0, 0, 0},
               result.bytes);
}

void applier::take_change(change_kind kind, const apply_message &message)
{
    batch_.add({kind, true, message.digest, need_sequence(message), message.time != 0 ? message.time : now(), 0, 0});
}

void applier::take_commit(std::uint64_t number, const apply_message &message)
{
    has_gap_ = message.after && *message.after != cursor_;
    if (has_gap_) {
        throw bad_value{
            fmt::format("after: changes are missing between cursor \"{}\" and cursor \"{}\"", cursor_, *message.after)};
    }
    cursor_ = message.cursor;
    committed_ = batch_.changes.size();
    requests_.push_back({message.kind, number, committed_, rejected_, message.cursor, 0});
    rejected_ = 0;
}

void applier::reject(std::uint64_t number, const std::string &cause, const line_hint &hint, bool is_held)
{
    json_object rejected = answer("rejected");
    rejected.number("line", number).text("cause", cause);
    if (is_held) {
        rejected.truth("held", true);
    }
    if (!hint.digests.empty()) {
        rejected.text("digest", to_hex(hint.digests.front()));
    }
    if (!hint.id.empty()) {
        rejected.text("id", hint.id);
    }
    answers_ += rejected.line();

    const bool is_row = is_of_snapshot(hint.sequence);
    (is_row ? snapshot_rejected_ : rejected_)++;

    for (const token_digest &digest : hint.digests) {
        if (is_row) {
            arriving_->deny(digest, hint.sequence);
        }
        batch_.add({change_kind::deny, true, digest, hint.sequence.value_or(0), 0, 0, 0});
    }
}

bool applier::is_of_snapshot(std::optional<std::uint64_t> sequence) const
{
    return arriving_ && sequence.value_or(0) <= arriving_->sequence();
}

bool applier::is_full() const
{
    return batch_.changes.size() >= max_changes || batch_.records.size() >= max_records_bytes;
}

}  // namespace pat::cli
