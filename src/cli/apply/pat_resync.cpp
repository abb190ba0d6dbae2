#include "cli/apply/pat_resync.h"

#include "cli/pat_failure.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <limits>

#include <fcntl.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr std::size_t max_bucket_in_memory = 65536;

/// Rows, records and tombstones that a transaction looks at, so that it is over in a fraction of a second.
constexpr std::size_t max_step = 8192;

/// The limits of a mass removal.
constexpr std::uint64_t least_removed = 100;
constexpr std::uint64_t most_removed_tenths = 9;

/// Of the rows with the same digest, the last counts: the one with the highest sequence, and among equal sequences a
/// valid one. An invalid row without a certain sequence always counts.
constexpr std::uint64_t last_order = std::numeric_limits<std::uint64_t>::max();

constexpr std::uint64_t order_of_row(std::uint64_t sequence)
{
    return 2 * sequence + 1;
}

struct item_header {
    token_digest digest;
    std::uint64_t order;
    std::uint16_t size;
};

/// Whether the record, without the facts of a request, lets a token in.
bool is_let_in(const token_record &token, std::int64_t now)
{
    return !token.is_revoked() && (token.expires_at == 0 || token.expires_at > now);
}

}  // namespace

spool::~spool()
{
    if (fd_ >= 0) {
        close(fd_);
    }
}

void spool::add(const token_digest &digest, std::uint64_t order, std::span<const std::byte> record)
{
    item_header header{};
    header.digest = digest;
    header.order = order;
    header.size = static_cast<std::uint16_t>(record.size());
    const auto *bytes = reinterpret_cast<const std::byte *>(&header);

    spool_bucket &bucket = buckets_[std::to_integer<std::size_t>(digest[0])];
    if (bucket.in_memory.size() + sizeof header + record.size() > max_bucket_in_memory) {
        write_out(bucket);
    }
    bucket.in_memory.insert(bucket.in_memory.end(), bytes, bytes + sizeof header);
    bucket.in_memory.insert(bucket.in_memory.end(), record.begin(), record.end());
}

void spool::write_out(spool_bucket &bucket)
{
    const auto fail = [&] {
        throw failure{exit_status::fault, fmt::format("the snapshot in \"{}\": {}", folder_, error_text(errno))};
    };

    if (fd_ < 0) {
        std::string path = folder_ + "/snapshot.XXXXXX";
        fd_ = mkostemp(path.data(), O_CLOEXEC);
        if (fd_ < 0 || unlink(path.c_str()) != 0) {
            fail();
        }
    }

    for (std::size_t done = 0; done < bucket.in_memory.size();) {
        const ssize_t written = pwrite(fd_, bucket.in_memory.data() + done, bucket.in_memory.size() - done,
                                       size_ + static_cast<off_t>(done));
        if (written > 0) {
            done += static_cast<std::size_t>(written);
        } else if (errno != EINTR) {
            fail();
        }
    }

    bucket.in_file.push_back({size_, bucket.in_memory.size()});
    size_ += static_cast<off_t>(bucket.in_memory.size());
    bucket.in_memory.clear();
}

void spool::read(std::size_t bucket, collection &out) const
{
    const auto take = [&](std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            item_header header;
            std::memcpy(&header, bytes.data(), sizeof header);
            bytes = bytes.subspan(sizeof header);
            out.add(header.digest, header.order, bytes.first(header.size));
            bytes = bytes.subspan(header.size);
        }
    };

    std::vector<std::byte> bytes;
    for (const spool_piece &piece : buckets_[bucket].in_file) {
        bytes.resize(piece.size);
        for (std::size_t done = 0; done < piece.size;) {
            const ssize_t length =
                pread(fd_, bytes.data() + done, piece.size - done, piece.offset + static_cast<off_t>(done));
            if (length > 0) {
                done += static_cast<std::size_t>(length);
            } else if (length == 0 || errno != EINTR) {
                throw failure{exit_status::fault,
                              fmt::format("the snapshot in \"{}\": {}", folder_, error_text(errno))};
            }
        }
        take(bytes);
    }
    take(buckets_[bucket].in_memory);
}

/// What a step does to one token. A step plans before it writes, as a write ends the walk.
struct resync::merge_action {
    enum class action_kind : unsigned char { put, append, erase, withdraw, deny, reformat };

    action_kind kind;
    token_digest digest;
    std::size_t row;                ///< of put and append
    std::int64_t local_revoked_at;  ///< as in the store
    std::int64_t revoked_at = 0;    ///< a revocation that overtook the row
    std::uint64_t sequence = 0;     ///< of that
};

void resync::add(const token_digest &digest, std::uint64_t sequence, std::span<const std::byte> record)
{
    counts_.received++;
    spool_.add(digest, order_of_row(sequence), record);
}

void resync::deny(const token_digest &digest, std::optional<std::uint64_t> sequence)
{
    spool_.add(digest, sequence ? order_of_row(*sequence) - 1 : last_order, {});
}

void resync::begin(pass next)
{
    pass_ = next;
    stage_ = stage::tokens;
    reached_ = {.is_end = true};
    end_bucket_ = 0;
    merged_ = 0;
}

/// Ends a pass before the last, once it has seen enough or everything.
void resync::end_pass()
{
    if (pass_ == pass::revocations) {
        pass_ = stage_ == stage::tokens ? pass_ : pass::held;
        return;
    }

    const auto &[removed, live_removed, live_kept, tokens] = removal_;
    const bool is_over = stage_ != stage::tokens;
    const bool is_much =
        live_removed >= least_removed && live_removed * 10 > (live_removed + live_kept) * most_removed_tenths;
    if (is_over && (counts_.received == 0 ? removed > 0 : is_much)) {
        begin(pass::revocations);
    } else if (is_over || (counts_.received > 0 && live_kept * 10 >= tokens)) {
        begin(pass::full);
    }
}

void resync::prepare()
{
    if (stage_ != stage::tokens || !reached_.is_end) {
        return;
    }

    reached_ = {};
    reached_.digest[0] = static_cast<std::byte>(end_bucket_);
    rows_ = {};
    while (end_bucket_ < spool::buckets && rows_.size() < max_step) {
        spool_.read(end_bucket_++, rows_);
    }
    rows_.sort();
    rows_.keep_last([](std::uint64_t, std::uint64_t) {});
}

store::fault resync::step(store::transaction &transaction)
{
    step_counts_ = {};
    step_removal_ = {};
    repaired_.clear();
    next_ = reached_;
    next_stage_ = stage_;
    now_ = std::max<std::int64_t>(1, std::time(nullptr));
    removal_.tokens = transaction.info().tokens;

    if (pass_ == pass::full) {
        // It looks at all of the store, and so converts it: docs/store-format.md, "Formats".
        transaction.info().format = transaction.info().record_format = newest_format;
    }
    if (stage_ == stage::tombstones) {
        return drop_tombstones(transaction);
    }

    std::vector<merge_action> plan;
    if (const store::fault problem = plan_merge(transaction, plan)) {
        return problem;
    }
    if (next_.is_end && end_bucket_ == spool::buckets) {
        next_stage_ = stage::tombstones;
    }
    return pass_ == pass::weigh ? store::fault{} : carry_out(transaction, plan);
}

void resync::move_on() noexcept
{
    counts_.written += step_counts_.written;
    counts_.removed += step_counts_.removed;
    merged_ += next_.row - reached_.row;
    reached_ = next_;
    stage_ = next_stage_;
    if (pass_ == pass::weigh) {
        removal_.removed += step_removal_.removed;
        removal_.live_removed += step_removal_.live_removed;
        removal_.live_kept += step_removal_.live_kept;
    }
    if (pass_ != pass::full) {
        end_pass();
    }
}

token_record resync::row_at(std::size_t row) const
{
    token_record result;
    const auto item = rows_[row];
    static_cast<void>(decode(make_token_key(item.digest), item.record, result));  // as it was encoded here
    return result;
}

store::fault resync::plan_merge(store::transaction &transaction, std::vector<merge_action> &plan)
{
    transaction.seek(reached_.digest);

    for (std::size_t work = 0;; work++) {
        token_digest digest;
        token_record stored;
        bool is_last = false;  // the store has nothing more
        const store::fault problem = transaction.next(digest, stored, is_last);
        const bool is_damaged = problem.kind == store::fault_kind::bad_record;
        if (problem && !is_damaged) {
            return problem;
        }

        const bool is_behind = is_last || std::to_integer<std::size_t>(digest[0]) >= end_bucket_;
        for (; next_.row < rows_.size() && (is_behind || rows_[next_.row].digest < digest); next_.row++, work++) {
            if (work >= max_step) {
                next_.digest = rows_[next_.row].digest;
                return {};
            }
            if (const store::fault failed = plan_new(transaction, next_.row, is_last, plan)) {
                return failed;
            }
        }
        if (is_behind) {
            next_.is_end = true;
            return {};
        }
        if (work >= max_step) {
            return transaction.interrupt_walk(next_.digest);
        }

        const std::size_t planned = plan.size();
        if (next_.row < rows_.size() && rows_[next_.row].digest == digest) {
            plan_both(transaction.info(), next_.row++, stored, is_damaged, plan);
        } else {
            plan_missing(transaction.info(), digest, stored, is_damaged, plan);
        }
        if (is_damaged && pass_ == pass::full) {
            repaired_.push_back(digest);
        }
        if (plan.size() == planned && !is_damaged && stored.format != transaction.info().record_format
            && pass_ == pass::full) {
            plan.push_back({merge_action::action_kind::reformat, digest, 0, 0});
        }
    }
}

/// A row without a record.
store::fault resync::plan_new(store::transaction &transaction, std::size_t row, bool is_last,
                              std::vector<merge_action> &plan)
{
    const auto item = rows_[row];
    if (item.record.empty() || pass_ != pass::full) {
        return {};
    }

    tombstone grave;
    bool is_buried = false;
    const store::fault problem = transaction.get(item.digest, grave, is_buried);
    if (problem) {
        // A damaged tombstone may have been newer than the row.
        return problem.kind == store::fault_kind::bad_record ? store::fault{} : problem;
    }

    merge_action action{is_last ? merge_action::action_kind::append : merge_action::action_kind::put, item.digest, row,
                        0};
    if (is_buried && grave.sequence > sequence_) {
        if (!grave.revoked) {
            return {};
        }
        action = {merge_action::action_kind::put, item.digest, row, 0, grave.deleted_at, grave.sequence};
    }
    plan.push_back(action);
    return {};
}

/// A row with a record.
void resync::plan_both(const meta_record &info, std::size_t row, const token_record &stored, bool is_damaged,
                       std::vector<merge_action> &plan)
{
    const auto item = rows_[row];
    step_removal_.live_kept += !is_damaged && is_let_in(stored, now_) ? 1 : 0;
    const bool is_current = !is_damaged && stored.generation == info.generation;

    if (item.record.empty()) {
        if (!is_damaged && stored.sequence <= sequence_ && !(stored.denied && is_current)) {
            plan.push_back({merge_action::action_kind::deny, item.digest, row, 0});
        }
        return;
    }
    if (pass_ != pass::full && row_at(row).revoked_at == 0) {
        return;
    }
    if (is_damaged) {
        plan.push_back({merge_action::action_kind::put, item.digest, row, 0});
        return;
    }
    if (stored.sequence <= sequence_) {
        token_record wanted = row_at(row);
        wanted.local_revoked_at = stored.local_revoked_at;
        if (!is_current || wanted != stored) {
            plan.push_back({merge_action::action_kind::put, item.digest, row, stored.local_revoked_at});
        }
    }
}

/// A record without a row. If it was revoked on this host it stays, now revoked by the source as well.
void resync::plan_missing(const meta_record &info, const token_digest &digest, const token_record &stored,
                          bool is_damaged, std::vector<merge_action> &plan)
{
    const bool is_newer = !is_damaged && stored.sequence > sequence_;
    const bool is_kept = !is_damaged && stored.local_revoked_at != 0;
    const bool is_withdrawn = stored.revoked_at != 0 && stored.generation == info.generation;

    if (is_newer) {
        step_removal_.live_kept += is_let_in(stored, now_) ? 1 : 0;
    } else if (!(is_kept && is_withdrawn)) {
        step_removal_.removed += is_kept ? 0 : 1;
        step_removal_.live_removed += !is_damaged && is_let_in(stored, now_) ? 1 : 0;
        if (pass_ != pass::full) {
            return;
        }
        plan.push_back(
            {is_kept ? merge_action::action_kind::withdraw : merge_action::action_kind::erase, digest, 0, 0});
    }
}

store::fault resync::carry_out(store::transaction &transaction, const std::vector<merge_action> &plan)
{
    for (const merge_action &action : plan) {
        token_record token;
        bool found = false;
        store::fault problem;

        switch (action.kind) {
        case merge_action::action_kind::put:
        case merge_action::action_kind::append:
            token = row_at(action.row);
            token.local_revoked_at = action.local_revoked_at;
            if (action.revoked_at != 0) {
                token.revoked_at = action.revoked_at;
                token.sequence = action.sequence;
            }
            problem = action.kind == merge_action::action_kind::append ? transaction.append(action.digest, token)
                                                                       : transaction.put(action.digest, token);
            step_counts_.written++;
            break;
        case merge_action::action_kind::erase:
            problem = transaction.erase(action.digest);
            step_counts_.removed++;
            break;
        case merge_action::action_kind::withdraw:
            problem = transaction.get(action.digest, token, found);
            token.sequence = sequence_;
            if (token.revoked_at == 0) {
                token.revoked_at = token.local_revoked_at;
            }
            problem = problem ? problem : transaction.put(action.digest, token);
            step_counts_.removed++;
            break;
        case merge_action::action_kind::deny:
            problem = transaction.get(action.digest, token, found);
            token.denied = true;
            problem = problem ? problem : transaction.put(action.digest, token);
            step_counts_.written++;
            break;
        case merge_action::action_kind::reformat:
            problem = transaction.reformat(action.digest);
            if (problem.kind == store::fault_kind::bad_record) {
                problem = {};  // it stays as it is, which "patctl convert" reports
            }
            break;
        }
        if (problem) {
            return problem;
        }
    }
    return {};
}

store::fault resync::drop_tombstones(store::transaction &transaction)
{
    std::vector<token_digest> old;
    bool is_last = false;

    while (old.size() < max_step) {
        token_digest digest;
        tombstone grave;
        const store::fault problem = transaction.next(digest, grave, is_last);
        if (problem && problem.kind != store::fault_kind::bad_record) {
            return problem;
        }
        if (is_last) {
            break;
        }
        if (problem || grave.sequence <= sequence_) {
            old.push_back(digest);
        }
    }
    for (const token_digest &digest : old) {
        if (const store::fault problem = transaction.unbury(digest)) {
            return problem;
        }
    }
    next_stage_ = is_last ? stage::end : stage::tombstones;
    return {};
}

}  // namespace pat::cli
