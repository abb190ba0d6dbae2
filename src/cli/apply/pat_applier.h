#pragma once

#include "core/pat_record.h"
#include "writer/pat_writer.h"

#include "cli/apply/pat_change.h"
#include "cli/apply/pat_message.h"
#include "cli/apply/pat_resync.h"
#include "cli/pat_command.h"
#include "cli/pat_json.h"
#include "cli/pat_lines.h"
#include "cli/pat_source_lock.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// "patctl apply": docs/apply.md.
namespace pat::cli {

/// The first snapshot of a source, for a store with tokens that came from no source, which no operator has accepted.
class held_back : public bad_value {
public:
    using bad_value::bad_value;
};

/// A line of the answer.
inline json_object answer(std::string_view kind)
{
    return std::move(json_object{}.text("answer", kind));
}

/// A commit or a heartbeat, to be answered once it is durable.
struct pending_request {
    message_kind kind;
    std::uint64_t line;
    std::size_t changes;  ///< how many of the batch come before it
    std::uint64_t rejected;
    std::string cursor;
    std::int64_t time;
};

/// Reads changes from standard input, writes them in batches, and answers on standard output. A snapshot is merged part
/// by part between batches.
class applier {
public:
    explicit applier(const command_context &context);

    exit_status run();

private:
    // --- lines: pat_apply_lines.cpp ---

    /// Reads what is waiting, or waits for the first line if there is nothing else to do.
    void read_lines();

    void take(const input_line &line);
    void act_on(std::uint64_t number, const apply_message &message);
    void take_put(const apply_message &message);
    void take_change(change_kind kind, const apply_message &message);
    void take_commit(std::uint64_t number, const apply_message &message);

    /// Denies the token of the line, which may have been a revocation.
    void reject(std::uint64_t number, const std::string &cause, const line_hint &hint, bool is_held = false);

    [[nodiscard]] bool is_of_snapshot(std::optional<std::uint64_t> sequence) const;
    [[nodiscard]] bool is_full() const;

    // --- snapshots: pat_apply_snapshot.cpp ---

    void begin_snapshot(std::uint64_t number, const apply_message &message);

    /// A store with tokens that came from no source becomes a copy of a source only if an operator accepts that.
    void require_no_tokens_of_others(const std::string &epoch);

    void end_snapshot(std::uint64_t number, const apply_message &message);

    [[nodiscard]] bool is_held() const { return merging_ && merging_->current() == resync::pass::held; }

    /// Whether the snapshot that removes too much was accepted; if not, stores that it is held back, with the figures
    /// of a new one.
    bool is_accepted(bool is_new);

    /// Repeats the answer from time to time, as the sender waits for the snapshot to be committed.
    void tell_that_it_is_held();

    [[nodiscard]] std::string held_cause() const;

    /// Merges a part of the snapshot, so that new changes need not wait for all of it.
    void merge();

    // --- batches and answers: pat_apply_batch.cpp ---

    /// Writes the committed changes, or all of them if they are too many to keep, and answers the requests.
    void write_batch();

    /// Selects all changes of the tokens that the batch revokes, as these must stay in order.
    [[nodiscard]] std::vector<bool> find_revocations(std::size_t count) const;

    /// Writes those of the changes for which `selected` is `value`.
    store::fault write_changes(store::transaction &transaction, const std::vector<bool> &selected, bool value,
                               std::vector<change_result> &outcomes);

    void fulfil_requests(meta_record &info) const;
    void answer_requests(const std::vector<change_result> &outcomes);

    // --- the store, beginning and end: pat_apply.cpp ---

    /// Runs a write transaction. A full disk leaves the store as it was (writer rule 5), and is waited for.
    void update(const std::function<store::fault(store::transaction &)> &body);

    /// Remembers the meta record as it will be after this transaction.
    void keep(const meta_record &info);

    void open();
    exit_status finish();
    void flush();

    static std::int64_t now() { return std::max<std::int64_t>(1, std::time(nullptr)); }

    /// Replaces a heartbeat in the future, which comes from a wrong clock and would make the store look fresh too long.
    static std::int64_t newer_heartbeat(std::int64_t stored, std::int64_t time);

    /// The time at which the source was reached, which may be long before the line is read, but not in the future.
    static std::int64_t not_after_now(std::int64_t time) { return time == 0 ? now() : std::min(time, now()); }

    const command_context &context_;
    source_lock lock_;
    line_reader lines_;
    json_parser parser_;
    store::writer writer_;

    bool has_ended_ = false;   ///< the input
    bool is_cut_off_ = false;  ///< within a line
    batch batch_;
    std::size_t committed_ = 0;  ///< how many of the batch come before a commit
    std::vector<pending_request> requests_;
    std::string answers_;

    bool has_gap_ = false;       ///< changes are missing before what was sent last
    std::string cursor_;         ///< of the last commit, or of the end of a snapshot
    std::uint64_t applied_ = 0;  ///< since the last commit, as are the next two
    std::uint64_t older_ = 0;
    std::uint64_t rejected_ = 0;

    std::unique_ptr<resync> arriving_;  ///< the snapshot between its begin and its end
    std::unique_ptr<resync> merging_;   ///< the snapshot that is being written
    std::uint64_t merging_line_ = 0;
    std::int64_t merging_time_ = 0;
    std::int64_t next_reminder_ = 0;  ///< that it is held back
    std::uint64_t snapshot_rejected_ = 0;
    bool is_stray_ = false;  ///< rows may belong to a snapshot that was rejected

    /// Of the store, as of the last transaction.
    store_state state_ = store_state::empty;
    std::string epoch_;
    std::uint64_t last_sequence_ = 0;
    std::uint64_t snapshot_sequence_ = 0;
    std::uint8_t open_generations_ = 0;
};

}  // namespace pat::cli
