#include "cli/apply/pat_change.h"

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
    tombstone grave;
    bool is_buried = false;

    store::fault problem = in.get(of, out.token, out.is_there);
    if (!problem && !out.is_there) {
        problem = in.get(of, grave, is_buried);
    }

    out.sequence = out.is_there ? out.token.sequence : grave.sequence;
    if (problem.kind == store::fault_kind::bad_record) {
        // What it said is lost, so nothing counts that may have been known already.
        out.is_damaged = out.is_there;
        out.sequence = in.info().last_sequence;
        return {};
    }
    return problem;
}

store::fault revoke(store::transaction &in, const change &one, known &what, std::int64_t now)
{
    if (!what.is_there || what.is_damaged) {
        return in.bury(one.of, {.sequence = one.sequence, .deleted_at = now, .revoked = true});
    }
    what.token.sequence = one.sequence;
    if (what.token.revoked_at == 0) {
        what.token.revoked_at = one.time;
    }
    return in.put(one.of, what.token);
}

/// A revocation on this host must outlast a deletion.
store::fault remove(store::transaction &from, const change &one, known &what, std::int64_t now)
{
    if (!what.is_there || what.is_damaged || what.token.local_revoked_at == 0) {
        return from.bury(one.of, {.sequence = one.sequence, .deleted_at = now});
    }
    what.token.sequence = one.sequence;
    if (what.token.revoked_at == 0) {
        what.token.revoked_at = now;
    }
    return from.put(one.of, what.token);
}

store::fault deny(store::transaction &in, const change &one, known &what, std::int64_t now)
{
    // A good record with the same sequence is to be applied.
    const std::uint64_t before = std::max(what.sequence, one.sequence > 0 ? one.sequence - 1 : 0);

    if (what.is_damaged || (what.is_there && what.token.denied && what.token.sequence == before)) {
        return {};
    }
    if (what.is_there) {
        what.token.denied = true;
        what.token.sequence = before;
        return in.put(one.of, what.token);
    }
    return before > what.sequence ? in.bury(one.of, {.sequence = before, .deleted_at = now}) : store::fault{};
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

store::fault apply(store::transaction &to, const change &one, std::span<const std::byte> record_bytes, std::int64_t now,
                   outcome &result)
{
    meta &info = to.info();
    known what;
    result = outcome::older;

    // What takes access away is not held up by a snapshot, which may still be on its way.
    if (one.kind == change_kind::put && one.sequence <= info.snapshot_sequence) {
        return {};
    }
    if (const store::fault problem = look_up(to, one.of, what)) {
        return problem;
    }
    if (one.sequence <= what.sequence && (one.kind != change_kind::deny || one.sequence != 0)) {
        return {};
    }

    result = what.is_damaged ? outcome::repaired : outcome::applied;
    if (one.kind == change_kind::deny) {
        return deny(to, one, what, now);
    }

    info.last_sequence = std::max(info.last_sequence, one.sequence);
    if (one.kind == change_kind::revoke) {
        return revoke(to, one, what, now);
    }
    if (one.kind == change_kind::remove) {
        return remove(to, one, what, now);
    }

    record token;
    if (const codec_error error = decode(make_token_key(one.of), record_bytes, token); error != codec_error::none) {
        return store::from_codec(error);
    }
    token.local_revoked_at = what.is_damaged ? 0 : what.token.local_revoked_at;
    return to.put(one.of, token);
}

}  // namespace pat::cli
