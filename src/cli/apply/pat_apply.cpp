#include "writer/pat_writer.h"

#include "cli/apply/pat_change.h"
#include "cli/apply/pat_message.h"
#include "cli/apply/pat_resync.h"
#include "cli/pat_command.h"
#include "cli/pat_json.h"
#include "cli/pat_lines.h"
#include "cli/pat_output.h"
#include "cli/pat_walk.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

namespace pat::cli {

namespace {

/// Lines that are read at a time: at least as many as a pipe holds.
constexpr std::size_t max_lines = 10000;

/// The most that is kept before a commit, and that a transaction writes, so that it takes a fraction of a second.
constexpr std::size_t max_changes = 20000;
constexpr std::size_t max_records_bytes = std::size_t{8} << 20;

/// A batch of so many writes revocations in a separate transaction, before the rest.
constexpr std::size_t many_changes = 1000;

/// The number of a generation is a byte: a sequence from 256 generations ago would count again.
constexpr std::uint8_t max_open_generations = 250;

constexpr int first_wait_ms = 100;
constexpr int longest_wait_ms = 5000;
constexpr int lock_wait_ms = 10000;

/// How often to check whether a held snapshot was accepted, and to repeat that it is held.
constexpr int held_wait_ms = 1000;
constexpr std::int64_t held_reminder_seconds = 30;

/// The largest size of a pipe that an unprivileged process may choose (pipe(7)).
constexpr int pipe_bytes = 1 << 20;

/// Keeps a store to one source at a time. The lock is on its folder, and ends with the process.
class source_lock {
public:
    explicit source_lock(const std::string &folder) : fd_{open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)}
    {
        if (fd_ < 0) {
            require(folder, store::from_errno(errno));
        }

        constexpr int pause_ms = 20;
        for (int waited = 0; flock(fd_, LOCK_EX | LOCK_NB) != 0; waited += pause_ms) {
            if (waited >= lock_wait_ms) {
                throw failure{exit_status::fault,
                              fmt::format("store \"{}\": another \"patctl apply\" is running on it", folder)};
            }
            poll(nullptr, 0, pause_ms);
        }
    }
    source_lock(const source_lock &) = delete;
    source_lock &operator=(const source_lock &) = delete;
    ~source_lock() { close(fd_); }

private:
    int fd_;
};

/// A row of a snapshot that was rejected. It decides nothing about its token.
class stray_row : public bad_value {
public:
    using bad_value::bad_value;
};

/// The first snapshot of a source, for a store with tokens that came from no source, which no operator has accepted.
class held_back : public bad_value {
public:
    using bad_value::bad_value;
};

/// A line of the answer.
json_object answer(std::string_view kind)
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

class applier {
public:
    explicit applier(const command_context &context)
        : context_{context},
          lock_{context.enter()},
          lines_{STDIN_FILENO, "standard input"}
    {
        // Only pipes have this, and more than the system allows is no harm either.
        static_cast<void>(fcntl(STDIN_FILENO, F_SETPIPE_SZ, pipe_bytes));
        require(context_.folder(), writer_.open(context_.folder().c_str(), context_.map_size));
    }

    exit_status run()
    {
        open();
        while (!has_ended_ || (merging_ && !is_held())) {
            if (is_held()) {
                static_cast<void>(lines_.is_waiting(held_wait_ms));
            }
            read_lines();
            write_batch();
            if (merging_) {
                merge();
            }
            flush();
        }
        return finish();
    }

private:
    // --- reading ---

    /// Reads what is waiting, or waits for the first line if there is nothing else to do.
    void read_lines()
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

    void take(const input_line &line)
    {
        if (!line.too_long && line.text.find_first_not_of(" \t") == std::string_view::npos) {
            return;
        }

        std::optional<simdjson::dom::object> object;
        try {
            if (line.too_long) {
                throw bad_value{fmt::format("longer than {} bytes", max_line_length)};
            }
            object = parser_.parse(line.text);
            act_on(line.number, read_message(*object));
        } catch (const stray_row &bad) {
            reject(line.number, bad.what(), {});
        } catch (const held_back &bad) {
            reject(line.number, bad.what(), {}, true);
            arriving_.reset();
            is_stray_ = true;
        } catch (const bad_value &bad) {
            reject(line.number, bad.what(), object ? read_hint(*object) : read_hint(line.text));
            std::string_view op;
            if (object && object->at_key("op").get(op) == simdjson::SUCCESS && op == "snapshot_begin") {
                arriving_.reset();
                is_stray_ = true;
            }
        }
    }

    void act_on(std::uint64_t number, const apply_message &message)
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

    void take_put(const apply_message &message)
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

    void take_change(change_kind kind, const apply_message &message)
    {
        batch_.add(
            {kind, true, message.digest, need_sequence(message), message.time != 0 ? message.time : now(), 0, 0});
    }

    static std::uint64_t need_sequence(const apply_message &message)
    {
        if (!message.sequence || *message.sequence == 0) {
            throw bad_value{"seq: a change needs a number of 1 or higher"};
        }
        return *message.sequence;
    }

    void take_commit(std::uint64_t number, const apply_message &message)
    {
        has_gap_ = message.after && *message.after != cursor_;
        if (has_gap_) {
            throw bad_value{fmt::format("after: changes are missing between cursor \"{}\" and cursor \"{}\"", cursor_,
                                        *message.after)};
        }
        cursor_ = message.cursor;
        committed_ = batch_.changes.size();
        requests_.push_back({message.kind, number, committed_, rejected_, message.cursor, 0});
        rejected_ = 0;
    }

    /// Denies the token of the line, which may have been a revocation.
    void reject(std::uint64_t number, const std::string &cause, const line_hint &hint, bool is_held = false)
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

    [[nodiscard]] bool is_of_snapshot(std::optional<std::uint64_t> sequence) const
    {
        return arriving_ && sequence.value_or(0) <= arriving_->sequence();
    }

    [[nodiscard]] bool is_full() const
    {
        return batch_.changes.size() >= max_changes || batch_.records.size() >= max_records_bytes;
    }

    // --- snapshots ---

    void begin_snapshot(std::uint64_t number, const apply_message &message)
    {
        const std::uint64_t sequence = *message.sequence;
        const bool is_new_history = message.epoch != epoch_;

        if (is_new_history) {
            // Changes without a commit so far have sequences of the old history.
            committed_ = batch_.changes.size();
        }
        write_batch();
        if (const std::uint64_t newest = std::max(last_sequence_, snapshot_sequence_);
            !is_new_history && sequence < newest) {
            throw bad_value{fmt::format("seq: the snapshot is older than the store, which holds change {}", newest)};
        }
        if (is_new_history && open_generations_ == max_open_generations) {
            throw bad_value{
                fmt::format("epoch: {} in a row had no complete snapshot: make the store anew, or keep to one epoch",
                            max_open_generations)};
        }
        if (epoch_.empty()) {
            require_no_tokens_of_others(message.epoch);
        }
        if (merging_) {
            reject(merging_line_, fmt::format("the snapshot that began at line {} replaces it", number), {});
        }

        update([&](store::transaction &transaction) -> store::fault {
            meta_record &info = transaction.info();
            if (is_new_history) {
                info.generation++;
                info.open_generations++;
                info.last_sequence = 0;
                info.epoch = message.epoch;
                info.cursor = {};
            }
            info.state = store_state::resync;
            info.snapshot_sequence = sequence;
            keep(info);
            return {};
        });

        merging_.reset();
        arriving_ = std::make_unique<resync>(context_.folder(), sequence);
        is_stray_ = false;
        snapshot_rejected_ = 0;
        if (is_new_history) {
            cursor_.clear();
        }
        answers_ +=
            answer("snapshot_begun").number("line", number).text("epoch", epoch_).number("seq", sequence).line();
    }

    /// A store with tokens that came from no source becomes a copy of a source only if an operator accepts that.
    void require_no_tokens_of_others(const std::string &epoch)
    {
        std::uint64_t tokens = 0;
        update([&](store::transaction &transaction) -> store::fault {
            bool is_local = false;
            tokens = transaction.info().tokens;
            if (const store::fault problem = find_local_tokens(transaction, is_local)) {
                return problem;
            }

            store::held_snapshot known;
            bool is_known = false;
            if (const store::fault problem = transaction.get(known, is_known)) {
                return problem;
            }
            if (!is_local || (is_known && known.is_accepted && (known.epoch.empty() || known.epoch == epoch))) {
                tokens = 0;
                return {};
            }
            return transaction.hold(
                {.held_at = is_known ? known.held_at : now(), .tokens = tokens, .is_first = true, .epoch = epoch});
        });
        if (tokens > 0) {
            throw held_back{fmt::format(
                "the store holds {} tokens that came from no source, and the snapshot would remove those that "
                "its source lacks: if that is intended, run \"patctl accept-snapshot\"",
                tokens)};
        }
    }

    static store::fault find_local_tokens(store::transaction &transaction, bool &found)
    {
        found = transaction.info().tokens > 0 && transaction.info().cursor.empty();
        while (transaction.info().tokens > 0 && !found) {
            token_digest digest;
            token_record token;
            bool is_last = false;
            const store::fault problem = transaction.next(digest, token, is_last);
            if (is_last) {
                return {};
            }
            if (problem && problem.kind != store::fault_kind::bad_record) {
                return problem;
            }
            found = !problem && token.sequence == 0;
        }
        return {};
    }

    void end_snapshot(std::uint64_t number, const apply_message &message)
    {
        if (!arriving_) {
            is_stray_ = false;
            throw bad_value{"no snapshot has begun"};
        }
        committed_ = batch_.changes.size();  // it is a commit, too
        has_gap_ = false;
        merging_ = std::move(arriving_);
        merging_line_ = number;
        merging_time_ = not_after_now(message.time);
        cursor_ = message.cursor;
    }

    [[nodiscard]] bool is_held() const { return merging_ && merging_->current() == resync::pass::held; }

    /// Whether a snapshot keeps clearly less than the one that the operator accepted. The source changes meanwhile, so
    /// a tenth less is allowed.
    static bool keeps_less(const resync::removal &planned, const store::held_snapshot &accepted)
    {
        const auto kept = [](std::uint64_t tokens, std::uint64_t removed) {
            return tokens - std::min(removed, tokens);
        };
        return !accepted.is_first
               && 10 * kept(planned.tokens, planned.removed) < 9 * kept(accepted.tokens, accepted.removed);
    }

    /// Whether the snapshot that removes too much was accepted; if not, stores that it is held back, with the figures
    /// of a new one.
    bool is_accepted(bool is_new)
    {
        const resync::removal &planned = merging_->planned_removal();
        const std::uint64_t received = merging_->done().received;
        bool accepted = false;
        update([&](store::transaction &transaction) -> store::fault {
            store::held_snapshot known;
            bool is_known = false;
            if (const store::fault problem = transaction.get(known, is_known)) {
                return problem;
            }
            const bool is_same = is_known && (known.epoch.empty() || known.epoch == transaction.info().epoch)
                                 && (received > 0 || (known.received == 0 && !known.is_first))
                                 && !(known.is_accepted && keeps_less(planned, known));
            accepted = is_same && known.is_accepted;
            if (accepted || (is_same && !is_new)) {
                return {};
            }
            return transaction.hold({.held_at = is_same ? known.held_at : now(),
                                     .received = received,
                                     .removed = planned.removed,
                                     .tokens = planned.tokens,
                                     .epoch = transaction.info().epoch});
        });
        return accepted;
    }

    /// Repeats the answer from time to time, as the sender waits for the snapshot to be committed.
    void tell_that_it_is_held()
    {
        if (now() < next_reminder_) {
            return;
        }
        next_reminder_ = now() + held_reminder_seconds;
        const resync::removal &planned = merging_->planned_removal();
        answers_ += answer("snapshot_held")
                        .text("cause", held_cause())
                        .number("removed", planned.removed)
                        .number("tokens", planned.tokens)
                        .line();
    }

    [[nodiscard]] std::string held_cause() const
    {
        const resync::removal &planned = merging_->planned_removal();
        return fmt::format("the snapshot has {} tokens, and would remove {} of the {} that the store holds: if that is "
                           "intended, run \"patctl accept-snapshot\"",
                           merging_->done().received, planned.removed, planned.tokens);
    }

    /// Merges a part of the snapshot, so that new changes need not wait for all of it.
    void merge()
    {
        if (is_held()) {
            if (!is_accepted(false)) {
                tell_that_it_is_held();
                return;
            }
            merging_->accept();
        }

        const bool was_weighed = merging_->current() != resync::pass::weigh;
        merging_->prepare();
        update([&](store::transaction &transaction) { return merging_->step(transaction); });
        merging_->move_on();
        for (const token_digest &digest : merging_->repaired()) {
            warn_of_repair(digest);
        }

        if (!was_weighed && merging_->is_mass_removal()) {
            next_reminder_ = 0;
            if (is_accepted(true)) {
                merging_->accept();
            } else {
                tell_that_it_is_held();
            }
        }

        const resync::counts &done = merging_->done();
        if (merging_->current() != resync::pass::full) {
            return;
        }
        if (!merging_->is_done()) {
            answers_ +=
                answer("snapshot_progress").number("done", merging_->merged()).number("of", done.received).line();
            return;
        }

        update([&](store::transaction &transaction) -> store::fault {
            meta_record &info = transaction.info();
            info.state = store_state::ready;
            info.open_generations = 0;
            info.last_sequence = std::max(info.last_sequence, merging_->sequence());
            info.cursor = cursor_;
            info.heartbeat = newer_heartbeat(info.heartbeat, merging_time_);
            keep(info);
            return transaction.release();
        });
        answers_ += answer("snapshot_committed")
                        .number("line", merging_line_)
                        .text("cursor", cursor_)
                        .number("received", done.received)
                        .number("written", done.written)
                        .number("removed", done.removed)
                        .number("rejected", snapshot_rejected_)
                        .number("transaction", writer_.last_transaction())
                        .line();
        merging_.reset();
    }

    // --- writing ---

    /// Writes the committed changes, or all of them if they are too many to keep, and answers the requests.
    void write_batch()
    {
        const std::size_t count = is_full() ? batch_.changes.size() : committed_;
        if (count == 0 && requests_.empty()) {
            return;
        }

        std::vector<change_result> outcomes(count);
        std::vector<bool> goes_first(count, false);
        if (count >= many_changes) {
            goes_first = find_revocations(count);
            update([&](store::transaction &transaction) {
                return write_changes(transaction, goes_first, true, outcomes);
            });
        }
        update([&](store::transaction &transaction) -> store::fault {
            if (const store::fault problem = write_changes(transaction, goes_first, false, outcomes)) {
                return problem;
            }
            fulfil_requests(transaction.info());
            keep(transaction.info());
            return {};
        });

        answer_requests(outcomes);
        batch_.drop(count);
        committed_ = 0;
        requests_.clear();
    }

    /// Selects all changes of the tokens that the batch revokes, as these must stay in order.
    [[nodiscard]] std::vector<bool> find_revocations(std::size_t count) const
    {
        std::set<token_digest> revoked;
        for (std::size_t i = 0; i < count; i++) {
            if (batch_.changes[i].revokes) {
                revoked.insert(batch_.changes[i].digest);
            }
        }

        std::vector<bool> result(count);
        for (std::size_t i = 0; i < count; i++) {
            result[i] = revoked.contains(batch_.changes[i].digest);
        }
        return result;
    }

    /// Writes those of the changes for which `selected` is `value`.
    store::fault write_changes(store::transaction &transaction, const std::vector<bool> &selected, bool value,
                               std::vector<change_result> &outcomes)
    {
        const std::int64_t time = now();
        for (std::size_t i = 0; i < selected.size(); i++) {
            if (selected[i] != value) {
                continue;
            }
            const token_change &change = batch_.changes[i];
            if (const store::fault problem = apply(transaction, change, batch_.record_of(change), time, outcomes[i])) {
                return problem;
            }
        }
        return {};
    }

    void fulfil_requests(meta_record &info) const
    {
        for (const pending_request &request : requests_) {
            if (info.state == store_state::resync) {
                return;  // only the end of a snapshot moves the cursor, and makes the store fresh
            }
            if (request.kind == message_kind::heartbeat) {
                info.heartbeat = newer_heartbeat(info.heartbeat, request.time);
            } else {
                info.state = store_state::ready;
                info.cursor = request.cursor;
            }
        }
    }

    void answer_requests(const std::vector<change_result> &outcomes)
    {
        std::size_t position = 0;
        const auto count_up_to = [&](std::size_t end) {
            for (; position < end; position++) {
                (outcomes[position] == change_result::older ? older_ : applied_)++;
                if (outcomes[position] == change_result::repaired) {
                    warn_of_repair(batch_.changes[position].digest);
                }
            }
        };

        for (const pending_request &request : requests_) {
            if (request.kind == message_kind::heartbeat) {
                const std::int64_t time = state_ == store_state::resync ? 0 : request.time;
                answers_ += answer("heartbeat").number("line", request.line).number("at", time).line();
                continue;
            }
            count_up_to(request.changes);
            answers_ += answer("committed")
                            .number("line", request.line)
                            .text("cursor", request.cursor)
                            .number("applied", applied_)
                            .number("older", older_)
                            .number("rejected", request.rejected)
                            .number("transaction", writer_.last_transaction())
                            .line();
            applied_ = 0;
            older_ = 0;
        }
        count_up_to(outcomes.size());
    }

    /// Runs a write transaction. A full disk leaves the store as it was (writer rule 5), and is waited for.
    template <typename Body>
    void update(const Body &body)
    {
        for (int wait = first_wait_ms;; wait = std::min(2 * wait, longest_wait_ms)) {
            const store::fault problem = writer_.update(body);
            if (problem.kind != store::fault_kind::disk_full) {
                require(context_.folder(), problem);
                return;
            }

            const std::string cause = describe(context_.folder(), problem);
            error(cause);
            answers_ += answer("waiting").text("cause", cause).number("milliseconds", wait).line();
            flush();

            // Without a reader, end: changes that are not durable will be sent again.
            pollfd input{STDIN_FILENO, 0, 0};
            if (poll(&input, has_ended_ ? 0 : 1, wait) > 0) {
                throw failure{exit_status::fault, cause};
            }
        }
    }

    /// Remembers the meta record as it will be after this transaction.
    void keep(const meta_record &info)
    {
        state_ = info.state;
        epoch_ = info.epoch;
        last_sequence_ = info.last_sequence;
        snapshot_sequence_ = info.snapshot_sequence;
        open_generations_ = info.open_generations;
    }

    // --- beginning and end ---

    void open()
    {
        update([&](store::transaction &transaction) -> store::fault {
            const meta_record &info = transaction.info();
            const bool has_pepper = info.scheme == digest_scheme::hmac_sha256;
            keep(info);
            cursor_ = info.cursor;

            json_object opened = answer("opened");
            opened.text("state", name(info.state))
                .text("epoch", info.epoch)
                .text("cursor", info.cursor)
                .number("last_sequence", info.last_sequence)
                .number("heartbeat", info.heartbeat)
                .number("tokens", info.tokens)
                .text("scheme", word_for(info.scheme));
            if (has_pepper) {
                opened.text("key_id", to_hex(info.key));
            }
            answers_ = opened.line();
            return {};
        });
        flush();
    }

    exit_status finish()
    {
        if (is_cut_off_) {
            error("the last line of the input is incomplete, and was dropped");
        }
        if (!batch_.changes.empty()) {
            error(fmt::format("{} changes without a commit after them were dropped", batch_.changes.size()));
        }
        if (is_held()) {
            error(held_cause());
        }
        if (arriving_) {
            error("the input ended before the end of the snapshot: the store waits for a complete one");
        }
        return is_cut_off_ || arriving_ || is_held() || !batch_.changes.empty() ? exit_status::no : exit_status::yes;
    }

    void flush()
    {
        write_out(answers_);
        answers_.clear();
    }

    static std::int64_t now() { return std::max<std::int64_t>(1, std::time(nullptr)); }

    /// Replaces a heartbeat in the future, which comes from a wrong clock and would make the store look fresh too long.
    static std::int64_t newer_heartbeat(std::int64_t stored, std::int64_t time)
    {
        return stored > now() ? time : std::max(stored, time);
    }

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

constexpr const char *apply_examples = R"(Examples:
  patctl apply < changes.jsonl
  pat-sync --source postgresql://… runs it, and so may any program that writes
  {"op":"put","seq":7,"digest":"9f86d0…","id":"42","subject":"user:42"} and {"op":"commit","cursor":"7"})";

}  // namespace

void add_apply(CLI::App &app, command_context &context)
{
    CLI::App *command = app.add_subcommand("apply", "Apply the changes that a source sends, and acknowledge them");
    command->footer(apply_examples);
    command->callback([&context] { context.run = [&context] { return std::make_unique<applier>(context)->run(); }; });
}

}  // namespace pat::cli
