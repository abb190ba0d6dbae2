#include "cli/pat_resync.h"

#include "cli/pat_failure.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <limits>

#include <fcntl.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr std::size_t max_bucket_in_memory = 65536;

/// Tokens and tombstones of a step, at least and at most.
constexpr std::size_t min_step = 8192;
constexpr std::size_t max_tombstones = 16384;

/// Denials come last among those of the same digest, so that they count.
constexpr std::uint64_t order_of_denial = std::numeric_limits<std::uint64_t>::max();

struct item_header {
    digest of;
    std::uint64_t order;
    std::uint16_t size;
};

bool are_equal(const record &a, const record &b)
{
    return a.sequence == b.sequence && a.issued_at == b.issued_at && a.not_before == b.not_before
           && a.expires_at == b.expires_at && a.revoked_at == b.revoked_at && a.local_revoked_at == b.local_revoked_at
           && a.denied == b.denied && a.id == b.id && a.subject == b.subject && a.name == b.name && a.scopes == b.scopes
           && std::ranges::equal(a.ranges, b.ranges) && std::ranges::equal(a.claims, b.claims);
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

void resync::add(const digest &of, std::uint64_t sequence, std::span<const std::byte> record)
{
    counts_.received++;
    spool_.add(of, sequence, record);
}

void resync::deny(const digest &of)
{
    spool_.add(of, order_of_denial, {});
}

store::fault resync::step(store::transaction &change)
{
    step_counts_ = {};
    next_stage_ = stage_;

    switch (stage_) {
    case stage::tokens: read_buckets(); return merge(change);
    case stage::tombstones: return drop_tombstones(change);
    case stage::done: break;
    }
    return {};
}

void resync::move_on() noexcept
{
    counts_.written += step_counts_.written;
    counts_.removed += step_counts_.removed;
    merged_ += rows_.size();

    first_bucket_ = end_bucket_;
    rows_ = {};
    stage_ = next_stage_;
}

void resync::read_buckets()
{
    if (end_bucket_ == first_bucket_) {
        while (end_bucket_ < spool::buckets && rows_.size() < min_step) {
            spool_.read(end_bucket_++, rows_);
        }
        rows_.sort();
        rows_.keep_last([](std::uint64_t, std::uint64_t) {});
    }
    if (end_bucket_ == spool::buckets) {
        next_stage_ = stage::tombstones;
    }
}

store::fault resync::merge(store::transaction &change)
{
    // LMDB allows no look back once something was written, so what is to be done is found out first.
    enum class act : unsigned char { put, append, erase, withdraw, deny };
    struct action {
        act is;
        digest of;
        std::size_t row;                ///< of put and append
        std::int64_t local_revoked_at;  ///< what the store has there
    };
    std::vector<action> plan;

    const auto read_row = [&](std::size_t at, record &out) {
        const auto row = rows_[at];
        return decode(make_token_key(row.of), row.record, out) == codec_error::none;
    };

    // A token that the snapshot lacks.
    const auto plan_missing = [&](const digest &of, const record &stored, bool is_damaged) {
        if (is_damaged || stored.local_revoked_at == 0) {
            if (is_damaged || stored.sequence <= sequence_) {
                plan.push_back({act::erase, of, 0, 0});
            }
        } else if (stored.revoked_at == 0 && stored.sequence <= sequence_) {
            plan.push_back({act::withdraw, of, 0, 0});
        }
    };

    const auto plan_both = [&](std::size_t at, const record &stored, bool is_damaged) {
        const auto row = rows_[at];
        if (row.record.empty()) {
            if (!is_damaged && !stored.denied && stored.sequence <= sequence_) {
                plan.push_back({act::deny, row.of, at, 0});
            }
            return;
        }
        record wanted;
        if (is_damaged) {
            plan.push_back({act::put, row.of, at, 0});
        } else if (read_row(at, wanted) && wanted.sequence >= stored.sequence) {
            wanted.local_revoked_at = stored.local_revoked_at;
            if (stored.generation != change.info().generation || !are_equal(wanted, stored)) {
                plan.push_back({act::put, row.of, at, stored.local_revoked_at});
            }
        }
    };

    const auto plan_new = [&](std::size_t at, bool is_last) -> store::fault {
        const auto row = rows_[at];
        tombstone grave;
        bool is_buried = false;
        const store::fault problem = change.get(row.of, grave, is_buried);
        if (problem && problem.kind != store::fault_kind::bad_record) {
            return problem;
        }
        if (!row.record.empty() && !(is_buried && !problem && grave.sequence > sequence_)) {
            plan.push_back({is_last ? act::append : act::put, row.of, at, 0});
        }
        return {};
    };

    digest first{};
    first[0] = static_cast<std::byte>(first_bucket_);
    change.seek(first);

    std::size_t at = 0;
    bool is_last = false;  // the store has nothing more
    for (bool is_behind = false; !is_behind;) {
        digest of;
        record stored;
        const store::fault problem = change.next(of, stored, is_last);
        const bool is_damaged = problem.kind == store::fault_kind::bad_record;
        if (problem && !is_damaged) {
            return problem;
        }
        is_behind = is_last || std::to_integer<std::size_t>(of[0]) >= end_bucket_;

        for (; at < rows_.size() && (is_behind || rows_[at].of < of); at++) {
            if (const store::fault failed = plan_new(at, is_last)) {
                return failed;
            }
        }
        if (is_behind) {
            break;
        }
        if (at < rows_.size() && rows_[at].of == of) {
            plan_both(at++, stored, is_damaged);
        } else {
            plan_missing(of, stored, is_damaged);
        }
    }

    for (const action &one : plan) {
        record token;
        bool found = false;
        store::fault problem;

        switch (one.is) {
        case act::put:
        case act::append:
            static_cast<void>(read_row(one.row, token));
            token.local_revoked_at = one.local_revoked_at;
            problem = one.is == act::append ? change.append(one.of, token) : change.put(one.of, token);
            step_counts_.written++;
            break;
        case act::erase:
            problem = change.erase(one.of);
            step_counts_.removed++;
            break;
        case act::withdraw:
            problem = change.get(one.of, token, found);
            token.sequence = sequence_;
            token.revoked_at = token.local_revoked_at;
            problem = problem ? problem : change.put(one.of, token);
            step_counts_.removed++;
            break;
        case act::deny:
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

    while (old.size() < max_tombstones) {
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
    next_stage_ = is_last ? stage::done : stage::tombstones;
    return {};
}

}  // namespace pat::cli
