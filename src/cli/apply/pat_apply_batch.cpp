#include "cli/apply/pat_applier.h"

#include "cli/pat_walk.h"

#include <set>

namespace pat::cli {

namespace {

/// A batch of so many writes revocations in a separate transaction, before the rest.
constexpr std::size_t many_changes = 1000;

}  // namespace

void applier::write_batch()
{
    const std::size_t count = is_full() ? batch_.changes.size() : committed_;
    if (count == 0 && requests_.empty()) {
        return;
    }

    std::vector<change_result> outcomes(count);
    std::vector<bool> goes_first(count, false);
    if (count >= many_changes) {
        goes_first = find_revocations(count);
        update([&](store::transaction &transaction) { return write_changes(transaction, goes_first, true, outcomes); });
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

std::vector<bool> applier::find_revocations(std::size_t count) const
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

store::fault applier::write_changes(store::transaction &transaction, const std::vector<bool> &selected, bool value,
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

void applier::fulfil_requests(meta_record &info) const
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

void applier::answer_requests(const std::vector<change_result> &outcomes)
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

}  // namespace pat::cli
