#include "store/pat_reader.h"

#include "store/pat_clock.h"
#include "store/pat_lmdb.h"
#include "store/pat_trap.h"

#include <cerrno>
#include <cstring>

namespace pat::store {

namespace {

/// The time that requests may wait in all for a store to be opened again, until the next maintain(). Opening takes a
/// millisecond, unless another process delays it.
constexpr std::int64_t max_reopening_ms = 100;

}  // namespace

fault reader::open(const char *folder, std::size_t map_size, unsigned wait_ms) noexcept
{
    close();

    folder_ = folder;
    map_size_ = map_size;
    reopening_ms_ = 0;

    problem_ = environment_.open(folder, open_mode::read, map_size, wait_ms);
    if (problem_) {
        return problem_;
    }

    const auto start = [this] {
        int code = environment_.begin_reading(transaction_);
        if (code != 0) {
            transaction_ = nullptr;
            problem_ = from_lmdb(code);
            return;
        }
        code = open_database(transaction_, database_);
        mdb_txn_reset(transaction_);

        problem_ = from_lmdb(code);
        if (problem_ || (problem_ = begin())) {
            return;
        }
        end();
    };

    if (const fault cut_short = environment::bounded(wait_ms, start)) {
        problem_ = cut_short;
    }

    if (problem_) {
        close();
    }
    return problem_;
}

void reader::close() noexcept
{
    if (transaction_ != nullptr) {
        // Frees the slot in lock.mdb, which is mapped, too.
        (void) trap::run([this] { mdb_txn_abort(transaction_); });
        transaction_ = nullptr;
    }

    environment_.close();
    meta_transaction_ = no_transaction;
    unpublished_ = no_transaction;
}

void reader::refuse(fault why) noexcept
{
    close();
    problem_ = why;
}

/// Opens the store again within a request, or closes it if requests have waited too long, as this worker serves other
/// sites as well.
void reader::reopen(fault why) noexcept
{
    if (reopening_ms_ >= max_reopening_ms) {
        refuse(why);
        return;
    }

    const std::int64_t begun_at = now_ms() - reopening_ms_;
    (void) open(folder_, map_size_, reopen_wait_ms);
    reopening_ms_ = now_ms() - begun_at;
}

/// Begins a transaction on the newest commit, with `meta_` up to date. Runs in a trap.
fault reader::begin() noexcept
{
    constexpr int max_renewals = 3;

    std::size_t transaction;
    std::size_t behind;

    for (int renewals = 1;; renewals++) {
        int code = mdb_txn_renew(transaction_);

        if (code == MDB_MAP_RESIZED) {  // rule 7
            if (const fault problem = environment_.grow()) {
                return problem;
            }
            meta_transaction_ = no_transaction;
            code = mdb_txn_renew(transaction_);
        }
        if (code != 0) {
            return from_lmdb(code);
        }

        // Rule 4. One commit may be written and not yet published: a moment in the life of a writer, or a writer that
        // was killed at that moment, whose commit the next one publishes. Anything else is a foreign lock.mdb.
        transaction = mdb_txn_id(transaction_);
        behind = environment_.last_transaction() - transaction;

        if (behind == 0 || renewals == max_renewals) {
            break;
        }
        end();
    }

    if (behind > 1 || (behind == 1 && !environment_.files_are_in_place())) {
        end();
        return {fault_kind::replaced};
    }

    if (transaction != meta_transaction_) {
        if (const fault problem = read_meta(transaction_, database_, meta_bytes_, meta_, &environment_.free())) {
            end();
            return problem;
        }
        meta_transaction_ = transaction;
    }
    return {};
}

void reader::end() noexcept
{
    mdb_txn_reset(transaction_);
}

/// One read transaction. Runs in a trap.
fault reader::fetch(const token_hasher &hasher, const token_key &token, allocator allocate, void *context,
                    token_record &out, lookup_result &result) noexcept
{
    if (const fault problem = begin()) {
        return problem;
    }
    if (!meta_.made_with(hasher)) {
        end();
        return {fault_kind::wrong_pepper};
    }

    result.heartbeat = meta_.heartbeat;

    MDB_val key = to_value(token);
    MDB_val value;

    const int code = mdb_get(transaction_, database_, &key, &value);
    if (code != 0) {
        end();
        return code == MDB_NOTFOUND ? fault{} : from_lmdb(code);
    }
    if (!environment_.free().is_current(token.size(), to_bytes(value))) {  // rule 15
        end();
        return {fault_kind::damaged};
    }

    // Check the copy, as the map changes if another process writes to the file.
    const auto mapped = to_bytes(value);
    std::byte *copy = nullptr;
    if (mapped.size() <= max_record_length) {
        copy = static_cast<std::byte *>(allocate(context, mapped.size()));
        if (copy != nullptr) {
            std::memcpy(copy, mapped.data(), mapped.size());
        }
    }
    end();

    if (mapped.size() > max_record_length) {
        return from_codec(codec_error::too_long);
    }
    if (copy == nullptr) {
        return from_lmdb(ENOMEM);
    }
    if (const codec_error error = decode(token, {copy, mapped.size()}, out); error != codec_error::none) {
        return from_codec(error);
    }

    result.found = true;
    return {};
}

lookup_result reader::lookup(const token_hasher &hasher, const token_key &token, allocator allocate, void *context,
                             token_record &out) noexcept
{
    if (!is_open()) {
        return {problem_};
    }

    lookup_result result;
    const auto body = [&] { result.problem = fetch(hasher, token, allocate, context, out, result); };

    if (!trap::run(body)) {
        // The environment must not be used again, but a new one may serve the tokens on undamaged pages.
        reopen({fault_kind::damaged});
        return {{fault_kind::damaged}};
    }

    if (result.problem.kind == fault_kind::replaced) {
        reopen(result.problem);
        if (!is_open()) {
            return {problem_};
        }
        if (!trap::run(body)) {
            result = {{fault_kind::damaged}};
        }
        if (result.problem.kind == fault_kind::replaced || result.problem.kind == fault_kind::damaged) {
            refuse(result.problem);
        }
    }
    return result;
}

/// Runs `body`, which returns a fault, in a transaction on the newest commit.
template <typename Body>
fault reader::read(const Body &body) noexcept
{
    if (!is_open()) {
        return problem_;
    }

    fault problem;
    const auto transaction = [&] {
        if (!(problem = begin())) {
            problem = body();
            end();
        }
    };
    if (!trap::run(transaction)) {
        problem = {fault_kind::damaged};
        reopen(problem);  // as after a lookup
    }
    return problem;
}

fault reader::check_made_with(const token_hasher &hasher) noexcept
{
    return read([&] { return meta_.made_with(hasher) ? fault{} : fault{fault_kind::wrong_pepper}; });
}

fault reader::describe(condition &out) noexcept
{
    return read([&] {
        MDB_envinfo info;
        MDB_stat tree;

        int code = mdb_env_info(environment_.get(), &info);
        if (code == 0) {
            code = mdb_env_stat(environment_.get(), &tree);
        }
        if (code != 0) {
            return from_lmdb(code);
        }

        out.state = meta_.state;
        out.heartbeat = meta_.heartbeat;
        out.tokens = meta_.tokens;
        out.revoked = meta_.revoked;
        out.commit = mdb_txn_id(transaction_);
        out.used_bytes = (info.me_last_pgno + 1) * tree.ms_psize;
        out.map_size = info.me_mapsize;
        out.readers = info.me_numreaders;
        out.max_readers = info.me_maxreaders;
        return fault{};
    });
}

void reader::maintain() noexcept
{
    if (!is_open()) {
        return;
    }
    reopening_ms_ = 0;

    if (!environment_.files_are_in_place()) {  // rule 5
        (void) open(folder_, map_size_, reopen_wait_ms);
        return;
    }

    fault problem;
    const auto body = [&] {
        // Whoever overwrote the file may have left the transaction id as it was.
        meta_transaction_ = no_transaction;
        environment_.free().forget();
        if ((problem = begin())) {
            return;
        }

        // Rule 4 lets a commit be unpublished for a moment. One that stays so is published when the store is opened by
        // the first of all processes, and only then.
        const std::size_t last = environment_.last_transaction();
        const bool is_published = last == mdb_txn_id(transaction_);
        if (!is_published && last == unpublished_) {
            problem = {fault_kind::replaced};
        }
        unpublished_ = is_published ? no_transaction : last;
        end();
    };
    if (!trap::run(body)) {
        problem = {fault_kind::damaged};
    }

    // A foreign lock.mdb heals once every process has let go of it, so it may be opened again in a while.
    if (problem.kind == fault_kind::replaced || problem.kind == fault_kind::damaged) {
        refuse(problem);
    }
}

}  // namespace pat::store
