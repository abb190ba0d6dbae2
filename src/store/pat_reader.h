#pragma once

#include "core/pat_digest.h"
#include "core/pat_record.h"
#include "store/pat_environment.h"
#include "store/pat_fault.h"

#include <cstddef>
#include <cstdint>

struct MDB_txn;

namespace pat::store {

/// Memory for a record that was found: `size` bytes, or nullptr.
using allocator = void *(*) (void *context, std::size_t size) noexcept;

/// How long a process that serves waits for others that are opening a store: they do so at the same time, and each
/// needs about a millisecond.
inline constexpr unsigned reopen_wait_ms = 20;

struct lookup_result {
    fault problem;
    bool found = false;  ///< never with a problem; false without one means that the store does not hold the token
    std::int64_t heartbeat = 0;  ///< as of the same commit
};

/// The state of a store, as a reader sees it.
struct condition {
    store_state state;
    std::int64_t heartbeat;  ///< Unix seconds; 0 if no source has been looked at
    std::uint64_t tokens;
    std::uint64_t revoked;
    std::uint64_t commit;      ///< transaction id
    std::uint64_t used_bytes;  ///< of data.mdb, the free pages included
    std::uint64_t map_size;    ///< bytes
    unsigned readers;          ///< slots of the reader table that were handed out so far; they are reused
    unsigned max_readers;
};

/// Looks tokens up, as an nginx worker does on each request. One transaction handle for the life of the environment;
/// a lookup is one short transaction, takes no lock, makes no syscall, and allocates only for the record it found; the
/// first after a commit also reads the meta record and the list of free pages.
///
/// The numbers in the comments of this class are the reader rules of docs/store-format.md.
class reader {
public:
    ~reader() { close(); }

    /// Opens the store in `folder` (which must outlive the reader), waiting at most `wait_ms` for others that are
    /// opening it. After a fault the reader is closed, and answers lookups with that fault.
    fault open(const char *folder, std::size_t map_size, unsigned wait_ms) noexcept;
    void close() noexcept;

    /// Closes the store and says why, in answer to lookups.
    void refuse(fault why) noexcept;

    /// Looks for the record under `token`, whose digest `hasher` made. A record that is found lies in memory from
    /// `allocate`.
    [[nodiscard]] lookup_result lookup(const token_hasher &hasher, const token_key &token, allocator allocate,
                                       void *context, token_record &out) noexcept;

    /// Describes the store as of now.
    fault describe(condition &out) noexcept;

    /// The heartbeat as of the newest commit that this reader has looked at, which maintain() does; 0 if there is none.
    [[nodiscard]] std::int64_t heartbeat() const noexcept { return is_open() ? meta_.heartbeat : 0; }

    /// Call about once a second while the store is open: notices that the files were replaced. Leaves a store closed if
    /// it is better to open it a second later.
    void maintain() noexcept;

    /// Whether the store was made with this hasher, by its current meta record.
    fault check_made_with(const token_hasher &hasher) noexcept;

    [[nodiscard]] bool is_open() const noexcept { return environment_.is_open(); }

    /// Why the reader is closed.
    [[nodiscard]] fault problem() const noexcept { return problem_; }

    [[nodiscard]] const file_identity &data() const noexcept { return environment_.data(); }

private:
    fault begin() noexcept;
    void end() noexcept;
    fault fetch(const token_hasher &hasher, const token_key &token, allocator allocate, void *context,
                token_record &out, lookup_result &result) noexcept;
    template <typename Body>
    fault read(const Body &body) noexcept;
    void reopen(fault why) noexcept;

    static constexpr std::size_t no_transaction = ~std::size_t{0};

    environment environment_;
    MDB_txn *transaction_ = nullptr;
    unsigned database_ = 0;
    fault problem_{fault_kind::absent};

    const char *folder_ = nullptr;
    std::size_t map_size_ = 0;
    std::int64_t reopening_ms_ = 0;  ///< that requests have waited for it to be opened again

    meta_record meta_;  ///< rule 11: decoded again when the transaction id has changed, and by maintain()
    std::size_t meta_transaction_ = no_transaction;
    record_buffer meta_bytes_{};

    std::size_t unpublished_ = no_transaction;  ///< the commit that maintain() found unpublished last time
};

}  // namespace pat::store
