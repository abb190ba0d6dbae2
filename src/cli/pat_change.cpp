#include "cli/pat_change.h"

#include <algorithm>

namespace pat::cli {

namespace {

/// What a store knows of a token.
struct known {
    bool is_there = false;
    bool is_damaged = false;  ///< its record is there, but can't be read
    record token;
    std::uint64_t sequence = 0;
};

store::fault look_up(store::transaction &in, const digest &of, known &out)
{
    const store::fault problem = in.get(of, out.token, out.is_there);
    if (problem.kind == store::fault_kind::bad_record) {
        out.is_damaged = true;
        return {};
    }
    if (problem || out.is_there) {
        out.sequence = out.token.sequence;
        return problem;
    }

    tombstone grave;
    bool is_buried = false;
    const store::fault failed = in.get(of, grave, is_buried);
    out.sequence = is_buried && !failed ? grave.sequence : 0;
    return failed.kind == store::fault_kind::bad_record ? store::fault{} : failed;
}

/// A token that can't be kept as it is: a revocation on this host must outlast its deletion.
store::fault remove(store::transaction &from, const digest &of, known &what, std::uint64_t sequence, std::int64_t time)
{
    if (!what.is_there || what.is_damaged || what.token.local_revoked_at == 0) {
        return from.bury(of, {.sequence = sequence, .deleted_at = time});
    }
    what.token.sequence = sequence;
    if (what.token.revoked_at == 0) {
        what.token.revoked_at = time;
    }
    return from.put(of, what.token);
}

store::fault deny(store::transaction &in, const digest &of, known &what, std::uint64_t sequence, std::int64_t time)
{
    // A good record with the same sequence is to be applied.
    const std::uint64_t before = std::max(what.sequence, sequence > 0 ? sequence - 1 : 0);

    if (what.is_damaged || (what.is_there && what.token.denied && what.token.sequence == before)) {
        return {};
    }
    if (what.is_there) {
        what.token.denied = true;
        what.token.sequence = before;
        return in.put(of, what.token);
    }
    return before > what.sequence ? in.bury(of, {.sequence = before, .deleted_at = time}) : store::fault{};
}

}  // namespace

void batch::add(change one, std::span<const std::byte> record)
{
    one.record_at = records.size();
    one.record_size = record.size();
    records.insert(records.end(), record.begin(), record.end());
    changes.push_back(one);
}

void batch::drop(std::size_t count)
{
    changes.erase(changes.begin(), changes.begin() + static_cast<std::ptrdiff_t>(count));

    std::size_t kept = 0;
    for (change &one : changes) {
        std::copy_n(records.begin() + static_cast<std::ptrdiff_t>(one.record_at), one.record_size,
                    records.begin() + static_cast<std::ptrdiff_t>(kept));
        one.record_at = kept;
        kept += one.record_size;
    }
    records.resize(kept);
}

store::fault apply(store::transaction &to, const change &one, std::span<const std::byte> record_bytes, outcome &result)
{
    meta &info = to.info();
    known what;
    result = outcome::older;

    const bool has_sequence = one.kind != change_kind::deny || one.sequence != 0;
    if (has_sequence && one.sequence <= info.snapshot_sequence) {
        return {};
    }
    if (const store::fault problem = look_up(to, one.of, what)) {
        return problem;
    }
    if (has_sequence && one.sequence <= what.sequence) {
        return {};
    }

    result = what.is_damaged ? outcome::repaired : outcome::applied;
    info.last_sequence = std::max(info.last_sequence, one.sequence);

    switch (one.kind) {
    case change_kind::put: {
        record token;
        if (const codec_error error = decode(make_token_key(one.of), record_bytes, token); error != codec_error::none) {
            return store::from_codec(error);
        }
        token.local_revoked_at = what.is_damaged ? 0 : what.token.local_revoked_at;
        return to.put(one.of, token);
    }
    case change_kind::revoke:
        if (!what.is_there || what.is_damaged) {
            return to.bury(one.of, {.sequence = one.sequence, .deleted_at = one.time});
        }
        what.token.sequence = one.sequence;
        if (what.token.revoked_at == 0) {
            what.token.revoked_at = one.time;
        }
        return to.put(one.of, what.token);
    case change_kind::remove: return remove(to, one.of, what, one.sequence, one.time);
    case change_kind::deny: return deny(to, one.of, what, one.sequence, one.time);
    }
    return {};
}

}  // namespace pat::cli
