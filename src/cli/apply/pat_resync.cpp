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

/// What is taken for a mass removal.
constexpr std::uint64_t least_removed = 100;
constexpr std::uint64_t most_removed_tenths = 9;

/// Among rows of the same digest, the last counts: the one with the highest sequence, and of the same sequence a good
/// one rather than one that can't be used. If its sequence is not certain, that one counts in any case.
constexpr std::uint64_t last_order = std::numeric_limits<std::uint64_t>::max();

constexpr std::uint64_t order_of_row(std::uint64_t sequence)
{
    return 2 * sequence + 1;
}

struct item_header {
    digest of;
    std::uint64_t order;
    std::uint16_t size;
};

/// Whether a token is let in, as far as it goes by the token.
bool is_let_in(const record &token, std::int64_t now)
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

void spool::add(const digest &of, std::uint64_t order, std::span<const std::byte> record)
{
    item_header header{};
    header.of = of;
    header.order = order;
    header.size = static_cast<std::uint16_t>(record.size());
    const auto *bytes = reinterpret_cast<const std::byte *>(&header);

    bucket &to = buckets_[std::to_integer<std::size_t>(of[0])];
    if (to.in_memory.size() + sizeof header + record.size() > max_bucket_in_memory) {
        write_out(to);
    }
    to.in_memory.insert(to.in_memory.end(), bytes, bytes + sizeof header);
    to.in_memory.insert(to.in_memory.end(), record.begin(), record.end());
}

void spool::write_out(bucket &from)
{
    const auto fail = [&] {
        throw failure{exit_status::fault, "the snapshot in \"" + folder_ + "\": " + error_text(errno)};
    };

    if (fd_ < 0) {
        std::string path = folder_ + "/snapshot.XXXXXX";
        fd_ = mkostemp(path.data(), O_CLOEXEC);
        if (fd_ < 0 || unlink(path.c_str()) != 0) {
            fail();
        }
    }

    for (std::size_t done = 0; done < from.in_memory.size();) {
        const ssize_t written =
            pwrite(fd_, from.in_memory.data() + done, from.in_memory.size() - done, size_ + static_cast<off_t>(done));
        if (written > 0) {
            done += static_cast<std::size_t>(written);
        } else if (errno != EINTR) {
            fail();
        }
    }

    from.in_file.push_back({size_, from.in_memory.size()});
    size_ += static_cast<off_t>(from.in_memory.size());
    from.in_memory.clear();
}

void spool::read(std::size_t which, collection &out) const
{
    const auto take = [&](std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            item_header header;
            std::memcpy(&header, bytes.data(), sizeof header);
            bytes = bytes.subspan(sizeof header);
            out.add(header.of, header.order, bytes.first(header.size));
            bytes = bytes.subspan(header.size);
        }
    };

    std::vector<std::byte> bytes;
    for (const piece &one : buckets_[which].in_file) {
        bytes.resize(one.size);
        for (std::size_t done = 0; done < one.size;) {
            const ssize_t got = pread(fd_, bytes.data() + done, one.size - done, one.at + static_cast<off_t>(done));
            if (got > 0) {
                done += static_cast<std::size_t>(got);
            } else if (got == 0 || errno != EINTR) {
                throw failure{exit_status::fault, "the snapshot in \"" + folder_ + "\": " + error_text(errno)};
            }
        }
        take(bytes);
    }
    take(buckets_[which].in_memory);
}

/// What a step does to one token. LMDB allows no look back once something was written, so it is found out before.
struct resync::action {
    enum class kind : unsigned char { put, append, erase, withdraw, deny };

    kind is;
    digest of;
    std::size_t row;                ///< of put and append
    std::int64_t local_revoked_at;  ///< what the store has there
    std::int64_t revoked_at = 0;    ///< a revocation that overtook the row
    std::uint64_t sequence = 0;     ///< of that
};

void resync::add(const digest &of, std::uint64_t sequence, std::span<const std::byte> record)
{
    counts_.received++;
    spool_.add(of, order_of_row(sequence), record);
}

void resync::deny(const digest &of, std::optional<std::uint64_t> sequence)
{
    spool_.add(of, sequence ? order_of_row(*sequence) - 1 : last_order, {});
}

void resync::begin(pass next)
{
    pass_ = next;
    stage_ = stage::tokens;
    at_ = {.is_end = true};
    end_bucket_ = 0;
    merged_ = 0;
}

/// A pass before the last has seen enough, or all.
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
    if (stage_ != stage::tokens || !at_.is_end) {
        return;
    }

    at_ = {};
    at_.of[0] = static_cast<std::byte>(end_bucket_);
    rows_ = {};
    while (end_bucket_ < spool::buckets && rows_.size() < max_step) {
        spool_.read(end_bucket_++, rows_);
    }
    rows_.sort();
    rows_.keep_last([](std::uint64_t, std::uint64_t) {});
}

store::fault resync::step(store::transaction &change)
{
    step_counts_ = {};
    step_removal_ = {};
    repaired_.clear();
    next_ = at_;
    next_stage_ = stage_;
    now_ = std::max<std::int64_t>(1, std::time(nullptr));
    removal_.tokens = change.info().tokens;

    if (stage_ == stage::tombstones) {
        return drop_tombstones(change);
    }

    std::vector<action> plan;
    if (const store::fault problem = plan_merge(change, plan)) {
        return problem;
    }
    if (next_.is_end && end_bucket_ == spool::buckets) {
        next_stage_ = stage::tombstones;
    }
    return pass_ == pass::weigh ? store::fault{} : carry_out(change, plan);
}

void resync::move_on() noexcept
{
    counts_.written += step_counts_.written;
    counts_.removed += step_counts_.removed;
    merged_ += next_.row - at_.row;
    at_ = next_;
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

record resync::row(std::size_t at) const
{
    record result;
    const auto item = rows_[at];
    static_cast<void>(decode(make_token_key(item.of), item.record, result));  // as it was encoded here
    return result;
}

store::fault resync::plan_merge(store::transaction &change, std::vector<action> &plan)
{
    change.seek(at_.of);

    for (std::size_t work = 0;; work++) {
        digest of;
        record stored;
        bool is_last = false;  // the store has nothing more
        const store::fault problem = change.next(of, stored, is_last);
        const bool is_damaged = problem.kind == store::fault_kind::bad_record;
        if (problem && !is_damaged) {
            return problem;
        }

        const bool is_behind = is_last || std::to_integer<std::size_t>(of[0]) >= end_bucket_;
        for (; next_.row < rows_.size() && (is_behind || rows_[next_.row].of < of); next_.row++, work++) {
            if (work >= max_step) {
                next_.of = rows_[next_.row].of;
                return {};
            }
            if (const store::fault failed = plan_new(change, next_.row, is_last, plan)) {
                return failed;
            }
        }
        if (is_behind) {
            next_.is_end = true;
            return {};
        }
        if (work >= max_step) {
            next_.of = of;
            return {};
        }

        if (next_.row < rows_.size() && rows_[next_.row].of == of) {
            plan_both(change.info(), next_.row++, stored, is_damaged, plan);
        } else {
            plan_missing(change.info(), of, stored, is_damaged, plan);
        }
        if (is_damaged && pass_ == pass::full) {
            repaired_.push_back(of);
        }
    }
}

/// A row without a record.
store::fault resync::plan_new(store::transaction &change, std::size_t at, bool is_last, std::vector<action> &plan)
{
    const auto item = rows_[at];
    if (item.record.empty() || pass_ != pass::full) {
        return {};
    }

    tombstone grave;
    bool is_buried = false;
    const store::fault problem = change.get(item.of, grave, is_buried);
    if (problem) {
        // A tombstone that is damaged may have been newer than the row.
        return problem.kind == store::fault_kind::bad_record ? store::fault{} : problem;
    }

    action one{is_last ? action::kind::append : action::kind::put, item.of, at, 0};
    if (is_buried && grave.sequence > sequence_) {
        if (!grave.revoked) {
            return {};
        }
        one = {action::kind::put, item.of, at, 0, grave.deleted_at, grave.sequence};
    }
    plan.push_back(one);
    return {};
}

/// A row with a record.
void resync::plan_both(const meta &info, std::size_t at, const record &stored, bool is_damaged,
                       std::vector<action> &plan)
{
    const auto item = rows_[at];
    step_removal_.live_kept += !is_damaged && is_let_in(stored, now_) ? 1 : 0;
    const bool is_current = !is_damaged && stored.generation == info.generation;

    if (item.record.empty()) {
        if (!is_damaged && stored.sequence <= sequence_ && !(stored.denied && is_current)) {
            plan.push_back({action::kind::deny, item.of, at, 0});
        }
        return;
    }
    if (pass_ != pass::full && row(at).revoked_at == 0) {
        return;
    }
    if (is_damaged) {
        plan.push_back({action::kind::put, item.of, at, 0});
        return;
    }
    if (stored.sequence <= sequence_) {
        record wanted = row(at);
        wanted.local_revoked_at = stored.local_revoked_at;
        if (!is_current || wanted != stored) {
            plan.push_back({action::kind::put, item.of, at, stored.local_revoked_at});
        }
    }
}

/// A record without a row. One that was revoked on this host stays, and is revoked by the source from then on.
void resync::plan_missing(const meta &info, const digest &of, const record &stored, bool is_damaged,
                          std::vector<action> &plan)
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
        plan.push_back({is_kept ? action::kind::withdraw : action::kind::erase, of, 0, 0});
    }
}

store::fault resync::carry_out(store::transaction &change, const std::vector<action> &plan)
{
    for (const action &one : plan) {
        record token;
        bool found = false;
        store::fault problem;

        switch (one.is) {
        case action::kind::put:
        case action::kind::append:
            token = row(one.row);
            token.local_revoked_at = one.local_revoked_at;
            if (one.revoked_at != 0) {
                token.revoked_at = one.revoked_at;
                token.sequence = one.sequence;
            }
            problem = one.is == action::kind::append ? change.append(one.of, token) : change.put(one.of, token);
            step_counts_.written++;
            break;
        case action::kind::erase:
            problem = change.erase(one.of);
            step_counts_.removed++;
            break;
        case action::kind::withdraw:
            problem = change.get(one.of, token, found);
            token.sequence = sequence_;
            if (token.revoked_at == 0) {
                token.revoked_at = token.local_revoked_at;
            }
            problem = problem ? problem : change.put(one.of, token);
            step_counts_.removed++;
            break;
        case action::kind::deny:
            problem = change.get(one.of, token, found);
            token.denied = true;
            problem = problem ? problem : change.put(one.of, token);
            step_counts_.written++;
            break;
        }
        if (problem) {
            return problem;
        }
    }
    return {};
}

store::fault resync::drop_tombstones(store::transaction &change)
{
    std::vector<digest> old;
    bool is_last = false;

    while (old.size() < max_step) {
        digest of;
        tombstone grave;
        const store::fault problem = change.next(of, grave, is_last);
        if (problem && problem.kind != store::fault_kind::bad_record) {
            return problem;
        }
        if (is_last) {
            break;
        }
        if (problem || grave.sequence <= sequence_) {
            old.push_back(of);
        }
    }
    for (const digest &of : old) {
        if (const store::fault problem = change.unbury(of)) {
            return problem;
        }
    }
    next_stage_ = is_last ? stage::end : stage::tombstones;
    return {};
}

}  // namespace pat::cli
