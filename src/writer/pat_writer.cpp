#include "writer/pat_writer.h"

#include "store/pat_lmdb.h"
#include "store/pat_trap.h"

#include <algorithm>
#include <ctime>
#include <type_traits>
#include <utility>

#include <unistd.h>

namespace pat::store {

template <typename Body>
int transaction::trapped(const Body &body) noexcept
{
    int code = 0;
    if (!trap::run([&] { code = body(); })) {
        is_broken_ = true;
        return MDB_CORRUPTED;
    }
    return code;
}

void transaction::seek(const token_digest &digest) noexcept
{
    walk_from_ = digest;
}

/// A decoded record, or the error. A sequence of another generation counts as 0.
template <typename Entry>
fault transaction::judge(codec_error error, Entry &out) const noexcept
{
    if (error != codec_error::none) {
        return from_codec(error);
    }
    if constexpr (requires { out.generation; }) {
        if (out.generation != meta_.generation) {
            out.sequence = 0;
        }
    }
    return {};
}

/// Reads the value of a key.
template <typename Entry>
fault transaction::find(const token_key &key, Entry &out, bool &found) noexcept
{
    codec_error error = codec_error::none;

    const int code = trapped([&] {
        MDB_val wanted = to_value(key);
        MDB_val value;

        const int result = mdb_get(handle_, database_, &wanted, &value);
        if (result == 0) {
            error = decode(key, to_bytes(value), out);
        }
        return result;
    });
    found = code == 0;

    if (code != 0) {
        return code == MDB_NOTFOUND ? fault{} : from_lmdb(code);
    }
    return judge(error, out);
}

/// Moves to the next key of the kind that `first` is of, which is where a walk begins.
template <typename Entry>
fault transaction::step(token_key first, token_digest &digest, Entry &out, bool &done) noexcept
{
    codec_error error = codec_error::none;
    done = false;

    const int code = trapped([&] {
        MDB_val key = to_value(first);
        MDB_val value;

        const bool begins = cursor_ == nullptr;
        int result = begins ? mdb_cursor_open(handle_, database_, &cursor_) : 0;
        if (result == 0) {
            result = mdb_cursor_get(cursor_, &key, &value, begins ? MDB_SET_RANGE : MDB_NEXT);
        }
        if (result != 0) {
            return result;
        }

        // Nothing sorts behind token records. Another key there is damage, as there may be records behind it.
        const std::span<const std::byte> found = to_bytes(key);
        if (!std::is_same_v<Entry, token_record> && !found.empty() && found[0] > first[0]) {
            return MDB_NOTFOUND;
        }
        if (found.size() != first.size() || found[0] != first[0]) {
            return MDB_CORRUPTED;
        }
        if (!begins && !order_.accepts(walked_, found.subspan(1))) {
            return MDB_CORRUPTED;
        }
        std::ranges::copy(found.subspan(1), digest.begin());
        walked_ = digest;
        error = decode(found, to_bytes(value), out);
        return 0;
    });

    if (code != 0) {
        done = code == MDB_NOTFOUND;
        return done ? fault{} : from_lmdb(code);
    }
    return judge(error, out);
}

fault transaction::interrupt_walk(token_digest &digest) const noexcept
{
    digest = walked_;
    return walk_from_ < walked_ ? fault{} : fault{fault_kind::damaged};
}

template <typename Entry>
fault transaction::write(const token_key &key, const Entry &entry, unsigned flags) noexcept
{
    record_buffer buffer;
    codec_error error = codec_error::none;
    fault problem;

    const int code = trapped([&] {
        Entry current = entry;
        if constexpr (requires { current.generation; }) {
            current.generation = meta_.generation;
        }
        if constexpr (requires { current.format; }) {
            current.format = meta_.record_format;
        }

        const encoded result = encode(key, current, buffer);
        error = result.error;
        if (error != codec_error::none) {
            return 0;
        }
        return put_value(key, result.bytes, flags, problem);
    });

    if (problem) {
        return problem;
    }
    return error == codec_error::none ? from_lmdb(code) : from_codec(error);
}

/// Looks at the pages that LMDB will touch, and writes a value. Returns LMDB's code; runs in a trap.
int transaction::put_value(std::span<const std::byte> key, std::span<const std::byte> bytes, unsigned flags,
                           fault &problem) noexcept
{
    problem = pages_->before_put(key, bytes.size());
    if (problem) {
        return 0;
    }
    MDB_val room = to_value(key);
    MDB_val value = to_value(bytes);
    return mdb_put(handle_, database_, &room, &value, flags);
}

fault transaction::remove(std::span<const std::byte> key) noexcept
{
    fault problem;

    // Nearly always there is nothing, as a new token has no tombstone: then no page changes, and none is looked at.
    const int code = trapped([&] {
        MDB_val wanted = to_value(key);
        MDB_val value;
        const int result = mdb_get(handle_, database_, &wanted, &value);
        if (result != 0 || (problem = pages_->before_remove(key))) {
            return result;
        }
        return mdb_del(handle_, database_, &wanted, nullptr);
    });

    if (problem || code == MDB_NOTFOUND) {
        return problem;
    }
    return from_lmdb(code);
}

fault transaction::get(const token_digest &digest, token_record &out, bool &found) noexcept
{
    return find(make_token_key(digest), out, found);
}

fault transaction::get(const token_digest &digest, tombstone &out, bool &found) noexcept
{
    return find(make_tombstone_key(digest), out, found);
}

fault transaction::get(const token_digest &digest, early_revocation &out, bool &found) noexcept
{
    return find(make_early_key(digest), out, found);
}

fault transaction::next(token_digest &digest, token_record &out, bool &done) noexcept
{
    return step(make_token_key(walk_from_), digest, out, done);
}

fault transaction::next(token_digest &digest, tombstone &out, bool &done) noexcept
{
    return step(make_tombstone_key(walk_from_), digest, out, done);
}

fault transaction::put(const token_digest &digest, const token_record &record) noexcept
{
    token_record old;
    bool existed;

    const fault problem = get(digest, old, existed);
    if (problem && problem.kind != fault_kind::bad_record) {
        return problem;
    }

    const bool was_revoked = existed && !problem && old.is_revoked();
    bool is_revoked = record.is_revoked();

    if (existed && !problem) {
        if (const fault failed = write(make_token_key(digest), record, 0)) {
            return failed;
        }
    } else {
        if (const fault failed = write_new(digest, record, 0, is_revoked)) {
            return failed;
        }
        if (const fault failed = unbury(digest)) {
            return failed;
        }
    }

    meta_.tokens += existed ? 0 : 1;
    meta_.revoked += is_revoked ? 1 : 0;
    meta_.revoked -= was_revoked ? 1 : 0;
    return {};
}

fault transaction::append(const token_digest &digest, const token_record &record) noexcept
{
    bool is_revoked = false;
    if (const fault failed = write_new(digest, record, MDB_APPEND, is_revoked)) {
        return failed;
    }

    meta_.tokens++;
    meta_.revoked += is_revoked ? 1 : 0;
    return {};
}

/// Writes a record where there was none, or none that can be read.
fault transaction::write_new(const token_digest &digest, token_record record, unsigned flags, bool &is_revoked) noexcept
{
    early_revocation early;
    bool has_early;

    if (const fault problem = get(digest, early, has_early); problem.kind == fault_kind::bad_record) {
        early = {.local_revoked_at = 1};  // the time is lost, but the token stays revoked
    } else if (problem) {
        return problem;
    }
    if (early.local_revoked_at != 0) {
        record.local_revoked_at = early.local_revoked_at;
    }
    record.denied = record.denied || early.denied;
    is_revoked = record.is_revoked();

    const fault failed = write(make_token_key(digest), record, flags);
    return failed || !has_early ? failed : remove(make_early_key(digest));
}

fault transaction::erase(const token_digest &digest) noexcept
{
    token_record old;
    bool existed;

    const fault problem = get(digest, old, existed);
    if (problem && problem.kind != fault_kind::bad_record) {
        return problem;
    }
    if (!existed) {
        return {};
    }

    const bool was_revoked = !problem && old.is_revoked();

    if (const fault failed = remove(make_token_key(digest))) {
        return failed;
    }

    meta_.tokens--;
    meta_.revoked -= was_revoked ? 1 : 0;
    return {};
}

fault transaction::bury(const token_digest &digest, const tombstone &grave) noexcept
{
    if (const fault failed = erase(digest)) {
        return failed;
    }
    return write(make_tombstone_key(digest), grave, 0);
}

fault transaction::unbury(const token_digest &digest) noexcept
{
    return remove(make_tombstone_key(digest));
}

fault transaction::revoke_early(const token_digest &digest, const early_revocation &revocation) noexcept
{
    if (revocation.local_revoked_at == 0 && !revocation.denied) {
        return remove(make_early_key(digest));
    }
    return write(make_early_key(digest), revocation, 0);
}

fault transaction::reformat(const token_digest &digest) noexcept
{
    record_buffer buffer;
    codec_error error = codec_error::none;
    fault problem;

    const int code = trapped([&] {
        const token_key key = make_token_key(digest);
        MDB_val wanted = to_value(key);
        MDB_val value;
        if (const int result = mdb_get(handle_, database_, &wanted, &value); result != 0) {
            return result;
        }

        token_record record;
        error = decode(key, to_bytes(value), record);
        if (error != codec_error::none) {
            return 0;
        }
        record.format = meta_.record_format;
        const encoded result = encode(key, record, buffer);
        error = result.error;
        return error == codec_error::none ? put_value(key, result.bytes, 0, problem) : 0;
    });

    if (problem) {
        return problem;
    }
    return error == codec_error::none ? from_lmdb(code) : from_codec(error);
}

fault transaction::get(held_snapshot &out, bool &found) noexcept
{
    codec_error error = codec_error::none;
    const int code = trapped([&] {
        MDB_val wanted = to_value(held_key());
        MDB_val value;
        const int result = mdb_get(handle_, database_, &wanted, &value);
        if (result == 0) {
            error = decode(to_bytes(value), out);
        }
        return result;
    });
    found = code == 0 && error == codec_error::none;
    return code == 0 || code == MDB_NOTFOUND ? fault{} : from_lmdb(code);
}

fault transaction::hold(const held_snapshot &held) noexcept
{
    held_buffer buffer;
    const encoded result = encode(held, buffer);
    if (result.error != codec_error::none) {
        return from_codec(result.error);
    }

    fault problem;
    const int code = trapped([&] { return put_value(held_key(), result.bytes, 0, problem); });
    return problem ? problem : from_lmdb(code);
}

fault transaction::release() noexcept
{
    return remove(held_key());
}

fault transaction::load_meta() noexcept
{
    fault problem;
    const int code = trapped([&] {
        problem = read_meta(handle_, database_, meta_bytes_, meta_);
        return 0;
    });
    if (code != 0) {
        problem = from_lmdb(code);
    }
    has_meta_ = !problem;

    return problem.kind == fault_kind::not_a_store ? fault{} : problem;
}

fault transaction::store_meta() noexcept
{
    record_buffer buffer;

    const encoded result = encode_meta(meta_, buffer);
    if (result.error != codec_error::none) {
        return from_codec(result.error);
    }

    fault problem;
    const int code = trapped([&] {
        MDB_val key = to_value(meta_key());
        MDB_val value;
        const bool is_there = mdb_get(handle_, database_, &key, &value) == 0;
        if (is_there && std::ranges::equal(to_bytes(value), result.bytes)) {
            return 0;
        }
        return put_value(meta_key(), result.bytes, 0, problem);
    });
    return problem ? problem : from_lmdb(code);
}

fault writer::open(const char *folder, std::size_t map_size, waiting_listener waiting) noexcept
{
    map_ = nullptr;
    waiting_ = std::move(waiting);
    if (const fault problem = environment_.open(folder, open_mode::write, map_size, command_wait_ms)) {
        return problem;
    }

    // If it was missing, it has just been created.
    if (const fault problem = environment_.files().set_lock_file_mode()) {
        return problem;
    }

    // Rule 3: taking the writer's lock publishes a transaction whose writer was killed.
    transaction scope;
    if (const fault problem = begin(scope)) {
        return problem;
    }
    const bool is_ours = scope.has_meta_;
    abort(scope);

    return is_ours ? fault{} : fault{fault_kind::not_a_store};
}

/// Rule 9: LMDB's own lock is in lock.mdb, which others may write, and knows its owner by a PID.
fault writer::wait_for_turn() const noexcept
{
    constexpr unsigned patience_ms = 1000;
    constexpr int without_restart = 0;
    const store_files &files = environment_.files();

    fault problem;
    {
        const trap::deadline patience{patience_ms, without_restart};
        problem = files.begin_writing(&patience);
        // A program that does not know open.lock may have LMDB's.
        while (!problem && environment_.writing_process() != 0) {
            if (patience.is_over()) {
                problem = {fault_kind::busy};
            }
            usleep(1000);
        }
    }
    if (problem.kind != fault_kind::busy) {
        return problem;
    }
    if (waiting_) {
        waiting_(environment_.writing_process());
    }
    return files.begin_writing(nullptr);
}

fault writer::begin(transaction &scope) noexcept
{
    if (const fault problem = wait_for_turn()) {
        return problem;
    }

    int code = scope.trapped([&] {
        clear_dead_readers();
        return mdb_txn_begin(environment_.get(), nullptr, 0, &scope.handle_);
    });
    if (code != 0) {
        if (scope.is_broken_) {
            abort(scope);
        }
        environment_.files().end_writing();
        return from_begin(code);
    }

    // Rule 4: or else lock.mdb and data.mdb are not of one store.
    if (mdb_txn_id(scope.handle_) != environment_.last_transaction() + 1 || !environment_.files_are_in_place()) {
        abort(scope);
        return {fault_kind::replaced};
    }

    if ((code = open_database(scope.handle_, scope.database_)) != 0) {
        abort(scope);
        return from_lmdb(code);
    }

    fault problem = scope.load_meta();
    if (!problem && map_ == nullptr) {
        code = scope.trapped([&] {
            problem = find_map(scope.handle_, scope.database_, map_);
            return 0;
        });
        problem = code == 0 ? problem : from_lmdb(code);
    }
    if (problem) {
        abort(scope);
        return problem;
    }

    MDB_envinfo info;
    mdb_env_info(environment_.get(), &info);
    pages_.begin(map_, info.me_mapsize, environment_.files().data(), mdb_txn_id(scope.handle_));
    scope.pages_ = &pages_;
    return {};
}

fault writer::commit(transaction &scope) noexcept
{
    if (scope.is_broken_) {  // whatever the body made of it
        abort(scope);
        return {fault_kind::damaged};
    }
    if (const fault problem = scope.store_meta()) {
        abort(scope);
        return problem;
    }

    // Rule 5: the handle is invalid after this, whatever the result. LMDB reports a full disk as EIO or ENOSPC.
    const int code = scope.trapped([&] { return mdb_txn_commit(scope.handle_); });
    if (scope.is_broken_) {
        abort(scope);
    }
    scope.handle_ = nullptr;
    environment_.files().end_writing();
    return from_lmdb(code);
}

/// Frees the slots of readers that died, which keep pages from being used again (rule 3). At most once a second, as it
/// asks for the lock of each process that reads.
void writer::clear_dead_readers() noexcept
{
    const std::time_t now = std::time(nullptr);
    if (now != cleared_at_) {
        cleared_at_ = now;
        mdb_reader_check(environment_.get(), nullptr);
    }
}

void writer::abort(transaction &scope) noexcept
{
    // The cursors of a call that was cut short lay on the stack, and mdb_txn_abort(3) would follow them.
    if (!scope.is_broken_) {
        (void) scope.trapped([&] {
            mdb_txn_abort(scope.handle_);
            return 0;
        });
    }
    if (scope.is_broken_) {
        environment_.abandon();
    }
    scope.handle_ = nullptr;
    environment_.files().end_writing();
}

}  // namespace pat::store
