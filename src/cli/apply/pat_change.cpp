#include "cli/apply/pat_change.h"

#include <algorithm>

namespace pat::cli {

namespace {

/// The state of a token in a store.
struct known_token {
    bool is_there = false;
    bool is_damaged = false;  ///< its record is there, but can't be read
    token_record token;
    std::uint64_t sequence = 0;
};

store::fault look_up(store::transaction &transaction, const token_digest &digest, known_token &out)
{
    tombstone grave;
    bool is_buried = false;

    store::fault problem = transaction.get(digest, out.token, out.is_there);
    if (!problem && !out.is_there) {
        problem = transaction.get(digest, grave, is_buried);
    }

    out.sequence = out.is_there ? out.token.sequence : grave.sequence;
    if (problem.kind == store::fault_kind::bad_record) {
        // Its sequence is lost, so no change counts that may have been applied before.
        out.is_damaged = out.is_there;
        out.sequence = transaction.info().last_sequence;
        return {};
    }
    return problem;
}

store::fault revoke(store::transaction &transaction, const token_change &change, known_token &known, std::int64_t now)
{
    if (!known.is_there || known.is_damaged) {
        return transaction.bury(change.digest, {.sequence = change.sequence, .deleted_at = now, .revoked = true});
    }
    known.token.sequence = change.sequence;
    if (known.token.revoked_at == 0) {
        known.token.revoked_at = change.time;
    }
    return transaction.put(change.digest, known.token);
}

/// A revocation on this host must outlast a deletion.
store::fault remove(store::transaction &transaction, const token_change &change, known_token &known, std::int64_t now)
{
    if (!known.is_there || known.is_damaged || known.token.local_revoked_at == 0) {
        return transaction.bury(change.digest, {.sequence = change.sequence, .deleted_at = now});
    }
    known.token.sequence = change.sequence;
    if (known.token.revoked_at == 0) {
        known.token.revoked_at = now;
    }
    return transaction.put(change.digest, known.token);
}

store::fault deny(store::transaction &transaction, const token_change &change, known_token &known, std::int64_t now)
{
    // Keep below the sequence, so that a good record with the same one still applies.
    const std::uint64_t before = std::max(known.sequence, change.sequence > 0 ? change.sequence - 1 : 0);

    if (known.is_damaged || (known.is_there && known.token.denied && known.token.sequence == before)) {
        return {};
    }
    if (known.is_there) {
        known.token.denied = true;
        known.token.sequence = before;
        return transaction.put(change.digest, known.token);
    }
    return before > known.sequence ? transaction.bury(change.digest, {.sequence = before, .deleted_at = now})
                                   : store::fault{};
}

}  // namespace

void batch::add(token_change change, std::span<const std::byte> record)
{
    change.record_at = records.size();
    change.record_bytes = record.size();
    records.insert(records.end(), record.begin(), record.end());
    changes.push_back(change);
}

void batch::drop(std::size_t count)
{
    changes.erase(changes.begin(), changes.begin() + static_cast<std::ptrdiff_t>(count));

    std::size_t kept = 0;
    for (token_change &change : changes) {
        std::copy_n(records.begin() + static_cast<std::ptrdiff_t>(change.record_at), change.record_bytes,
                    records.begin() + static_cast<std::ptrdiff_t>(kept));
        change.record_at = kept;
        kept += change.record_bytes;
    }
    records.resize(kept);
}

store::fault apply(store::transaction &transaction, const token_change &change,
                   std::span<const std::byte> encoded_record, std::int64_t now, change_result &result)
{
    meta_record &info = transaction.info();
    known_token known;
    result = change_result::older;

    // Changes that take access away do not wait for a snapshot, which may still be arriving.
    if (change.kind == change_kind::put && change.sequence <= info.snapshot_sequence) {
        return {};
    }
    if (const store::fault problem = look_up(transaction, change.digest, known)) {
        return problem;
    }
    if (change.sequence <= known.sequence && (change.kind != change_kind::deny || change.sequence != 0)) {
        return {};
    }

    result = known.is_damaged ? change_result::repaired : change_result::applied;
    if (change.kind == change_kind::deny) {
        return deny(transaction, change, known, now);
    }

    info.last_sequence = std::max(info.last_sequence, change.sequence);
    if (change.kind == change_kind::revoke) {
        return revoke(transaction, change, known, now);
    }
    if (change.kind == change_kind::remove) {
        return remove(transaction, change, known, now);
    }

    token_record token;
    if (const codec_error error = decode(make_token_key(change.digest), encoded_record, token);
        error != codec_error::none) {
        return store::from_codec(error);
    }
    token.local_revoked_at = known.is_damaged ? 0 : known.token.local_revoked_at;
    return transaction.put(change.digest, token);
}

}  // namespace pat::cli
