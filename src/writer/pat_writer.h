#pragma once

#include "core/pat_digest.h"
#include "core/pat_record.h"
#include "store/pat_environment.h"
#include "store/pat_fault.h"
#include "writer/pat_held.h"
#include "writer/pat_order.h"
#include "writer/pat_pages.h"

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <optional>
#include <span>

#include <sys/types.h>

struct MDB_cursor;
struct MDB_txn;

/// Writing a store: patctl only. The numbers in comments are the writer rules of docs/store-format.md.
namespace pat::store {

/// A write transaction, which exists only inside writer::update(). What is read through it may be used until the next
/// change.
class transaction {
public:
    transaction(const transaction &) = delete;
    transaction &operator=(const transaction &) = delete;

    /// Reads the record of a digest; `found` tells whether there is one. A sequence of another generation comes as 0,
    /// which is also what it counts for.
    fault get(const token_digest &digest, token_record &out, bool &found) noexcept;
    fault get(const token_digest &digest, tombstone &out, bool &found) noexcept;
    fault get(const token_digest &digest, early_revocation &out, bool &found) noexcept;

    /// Has next() begin a walk at the first digest that is not less than `digest`; without it, at the first of all.
    void seek(const token_digest &digest) noexcept;

    /// Moves to the next token record in key order; `done` tells that there was none. After `fault_kind::bad_record`
    /// the walk can go on, and `digest` is that of the damaged record. The walk must end before a change.
    fault next(token_digest &digest, token_record &out, bool &done) noexcept;

    /// The same for tombstones. A transaction can walk through only one of both.
    fault next(token_digest &digest, tombstone &out, bool &done) noexcept;

    /// Walks with next(): `visit(digest, entry, problem) -> bool` returns whether to go on. After
    /// `fault_kind::bad_record`, its `problem`, there is no entry.
    template <typename Entry, typename Visit>
    fault for_each(const Visit &visit)
    {
        for (;;) {
            token_digest digest{};
            Entry entry;
            bool done = false;
            const fault problem = next(digest, entry, done);
            if (problem && problem.kind != fault_kind::bad_record) {
                return problem;
            }
            if (done || !visit(digest, entry, problem)) {
                return {};
            }
        }
    }

    /// Ends a walk at the digest that next() returned last, which a later transaction passes to seek(). It must be past
    /// the one where this walk began: if keys are out of order, the walk through all would never end.
    fault interrupt_walk(token_digest &digest) const noexcept;

    /// Writes the record of a digest, new or not, in the current generation, and removes its tombstone. A record that
    /// is new, or replaces a damaged one, takes over its early revocation. `record` may be one that get() returned.
    fault put(const token_digest &digest, const token_record &record) noexcept;

    /// Like put(), for a digest that is higher than any in the store and has no tombstone (rule 7).
    fault append(const token_digest &digest, const token_record &record) noexcept;

    /// Writes the record of a digest, which must be there, in the record format of the store. All else stays as it is,
    /// and so does the record if it can't be read, or says what no record may: `fault_kind::bad_record`.
    fault reformat(const token_digest &digest) noexcept;

    /// Removes the record of a digest, if there is one.
    fault erase(const token_digest &digest) noexcept;

    /// Removes the record of a digest, if there is one, and leaves a tombstone of the current generation.
    fault bury(const token_digest &digest, const tombstone &grave) noexcept;

    /// Removes the tombstone of a digest, if there is one.
    fault unbury(const token_digest &digest) noexcept;

    /// Stores the revocation of a token whose record is yet to be written. An empty one removes it.
    fault revoke_early(const token_digest &digest, const early_revocation &revocation) noexcept;

    /// The snapshot that is held back; `found` tells whether there is one that can be read. Its text is valid until the
    /// next change.
    fault get(held_snapshot &out, bool &found) noexcept;

    /// Writes or removes the snapshot that is held back.
    fault hold(const held_snapshot &held) noexcept;
    fault release() noexcept;

    /// The meta record. Changes are written with the transaction; its texts must live until then. The counts are kept
    /// by the functions above.
    [[nodiscard]] meta_record &info() noexcept { return meta_; }
    [[nodiscard]] const meta_record &info() const noexcept { return meta_; }

private:
    friend class writer;

    transaction() = default;

    fault load_meta() noexcept;
    fault store_meta() noexcept;

    /// Runs a `body` that touches the map and returns an LMDB code.
    template <typename Body>
    int trapped(const Body &body) noexcept;

    template <typename Entry>
    fault judge(codec_error error, Entry &out) const noexcept;

    template <typename Entry>
    fault find(const token_key &key, Entry &out, bool &found) noexcept;

    template <typename Entry>
    fault step(token_key first, token_digest &digest, Entry &out, bool &done) noexcept;

    template <typename Entry>
    fault write(const token_key &key, const Entry &entry, unsigned flags) noexcept;

    fault write_new(const token_digest &digest, token_record record, unsigned flags, bool &is_revoked) noexcept;

    int put_value(std::span<const std::byte> key, std::span<const std::byte> bytes, unsigned flags,
                  fault &problem) noexcept;

    fault remove(std::span<const std::byte> key) noexcept;

    MDB_txn *handle_ = nullptr;
    page_check *pages_ = nullptr;   ///< before each change it looks at the pages that this will touch (rule 10)
    MDB_cursor *cursor_ = nullptr;  ///< of the walk; LMDB closes it with the transaction
    unsigned database_ = 0;
    token_digest walk_from_{};
    token_digest walked_{};  ///< where the walk is
    walk_order order_;
    meta_record meta_;
    record_buffer meta_bytes_{};
    bool has_meta_ = false;
    bool is_broken_ = false;  ///< a fault interrupted LMDB: neither it nor its environment may be used again
};

class writer {
public:
    /// Makes a store in `folder`, which must not exist or be empty (rule 1). The files belong to `group`, if one is
    /// given, which must be the one of the readers. Digests will be those that `hasher` makes.
    static fault create(const char *folder, std::optional<gid_t> group, const token_hasher &hasher,
                        std::size_t map_size) noexcept;

    /// Copies the store in `source`, compacted, to `destination`, which must not exist (rule 8). It appears there
    /// whole or not at all, with the group of `source`.
    static fault backup(const char *source, const char *destination, std::size_t map_size) noexcept;

    /// To be told that a transaction has waited for other writers for a second, and goes on waiting. `thread` is the
    /// number in lock.mdb, where the store's group can write, or 0 if there is none.
    using waiting_listener = std::function<void(pid_t thread)>;

    /// Opens the store in `folder`, and publishes a transaction that a killed writer left unpublished (rule 3).
    fault open(const char *folder, std::size_t map_size, waiting_listener waiting = {}) noexcept;

    /// Runs `body(transaction &) -> fault` and commits, durably, if it returns no fault. A body that fails leaves
    /// nothing behind.
    template <typename Body>
    fault update(const Body &body) noexcept
    {
        transaction scope;
        if (const fault problem = begin(scope)) {
            return problem;
        }
        if (const fault problem = body(scope)) {
            abort(scope);
            return problem;
        }
        return commit(scope);
    }

    /// The id of the newest transaction. A transaction that changes nothing has none.
    [[nodiscard]] std::uint64_t last_transaction() const noexcept { return environment_.last_transaction(); }

private:
    fault wait_for_turn() const noexcept;
    fault begin(transaction &scope) noexcept;
    fault commit(transaction &scope) noexcept;
    void abort(transaction &scope) noexcept;
    void clear_dead_readers() noexcept;

    environment environment_;
    waiting_listener waiting_;
    const std::byte *map_ = nullptr;  ///< where LMDB has data.mdb, once that has a key
    page_check pages_;
    std::time_t cleared_at_ = 0;
};

}  // namespace pat::store
