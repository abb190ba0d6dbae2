#include "cli/apply/pat_applier.h"

#include "cli/pat_walk.h"

namespace pat::cli {

namespace {

/// The number of a generation is a byte: a sequence from 256 generations ago would count again.
constexpr std::uint8_t max_open_generations = 250;

/// How often to repeat that a snapshot is held.
constexpr std::int64_t held_reminder_seconds = 30;

store::fault find_local_tokens(store::transaction &transaction, bool &found)
{
    found = transaction.info().tokens > 0 && transaction.info().cursor.empty();
    if (transaction.info().tokens == 0 || found) {
        return {};
    }
    return transaction.for_each<token_record>(
        [&](const token_digest &, const token_record &token, store::fault problem) {
            found = !problem && token.sequence == 0;
            return !found;
        });
}

/// Whether a snapshot keeps clearly less than the one that the operator accepted. The source changes meanwhile, so
/// a tenth less is allowed.
bool keeps_less(const resync::removal &planned, const store::held_snapshot &accepted)
{
    const auto kept = [](std::uint64_t tokens, std::uint64_t removed) { return tokens - std::min(removed, tokens); };
    return !accepted.is_first
           && 10 * kept(planned.tokens, planned.removed) < 9 * kept(accepted.tokens, accepted.removed);
}

}  // namespace

void applier::begin_snapshot(std::uint64_t number, const apply_message &message)
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
    answers_ += answer("snapshot_begun").number("line", number).text("epoch", epoch_).number("seq", sequence).line();
}

void applier::require_no_tokens_of_others(const std::string &epoch)
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
        throw held_back{
            fmt::format("the store holds {} tokens that came from no source, and the snapshot would remove those that "
                        "its source lacks: if that is intended, run \"patctl accept-snapshot\"",
                        tokens)};
    }
}

void applier::end_snapshot(std::uint64_t number, const apply_message &message)
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

bool applier::is_accepted(bool is_new)
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

void applier::tell_that_it_is_held()
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

std::string applier::held_cause() const
{
    const resync::removal &planned = merging_->planned_removal();
    return fmt::format("the snapshot has {} tokens, and would remove {} of the {} that the store holds: if that is "
                       "intended, run \"patctl accept-snapshot\"",
                       merging_->done().received, planned.removed, planned.tokens);
}

void applier::merge()
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
    std::uint8_t format = newest_format;
    update([&](store::transaction &transaction) {
        format = transaction.info().format;
        return merging_->step(transaction);
    });
    merging_->move_on();
    for (const token_digest &digest : merging_->repaired()) {
        warn_of_repair(digest);
    }
    if (format != newest_format && merging_->current() == resync::pass::full) {
        notice(fmt::format("the snapshot converts the store to format {}: nginx of an earlier release cannot read it",
                           newest_format));
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
        answers_ += answer("snapshot_progress").number("done", merging_->merged()).number("of", done.received).line();
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

}  // namespace pat::cli
