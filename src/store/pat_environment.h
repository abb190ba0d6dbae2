#pragma once

#include "store/pat_fault.h"
#include "store/pat_files.h"
#include "store/pat_free_pages.h"
#include "store/pat_trap.h"

#include <algorithm>
#include <cstddef>

#include <sys/types.h>

struct MDB_env;
struct MDB_txn;

/// Opening and closing a store's LMDB environment: the common part of the rules of docs/store-format.md, "Readers" and
/// "Writers".
namespace pat::store {

/// Address space, not disk, and the same everywhere (reader rule 7): about 250 million tokens.
inline constexpr std::size_t default_map_size = std::size_t{32} << 30;

/// The first to open a store sizes its reader table, so this is the same everywhere, too.
inline constexpr unsigned max_readers = 1024;

/// How long a command waits for others that are opening the store. nginx workers take a millisecond each.
inline constexpr unsigned command_wait_ms = 10000;

/// How long LMDB may take to open a store, at least: a hundred times what it needs.
inline constexpr unsigned min_open_ms = 500;

/// How long an opener tries, at most, to have the mutexes in lock.mdb made anew, while others wait for open.lock.
inline constexpr unsigned max_healing_ms = 1000;

/// The largest address space that a file can ask for. A process has 128 TiB for all its stores.
inline constexpr std::size_t max_map_size = std::size_t{1} << 40;

/// The largest lock.mdb: sixteen times as many readers as a store has.
inline constexpr off_t max_lock_file_size = off_t{1} << 20;

/// Whether this release of LMDB may be used (writer rule 6).
fault check_library() noexcept;

/// Reads the header of data.mdb with pread(2), never through LMDB (reader rule 8): magic, version, page size, that the
/// file reaches to the roots of its trees, and that it asks for no more address space than a store may have.
fault check_data_file(int fd, std::size_t map_size) noexcept;

/// An open environment. It must be opened after fork(2) (reader rule 1), and one store only once in a process: LMDB's
/// file locks would vanish with the first of two to be closed. A second reader of a store is refused
/// (same_store_twice).
class environment {
public:
    environment() = default;
    environment(const environment &) = delete;
    environment &operator=(const environment &) = delete;
    ~environment() { close(); }

    fault open(const char *folder, open_mode mode, std::size_t map_size, unsigned wait_ms) noexcept;
    void close() noexcept;

    /// Forgets the environment without touching it again. A write transaction that a fault cut short holds the writer's
    /// lock, which the kernel hands on when the process ends, but only if lock.mdb is still mapped then.
    void abandon() noexcept;

    [[nodiscard]] bool is_open() const noexcept { return env_ != nullptr; }
    [[nodiscard]] MDB_env *get() const noexcept { return env_; }

    /// Begins a read transaction, and frees the slots of dead readers first if there is none left (reader rule 7).
    /// Returns an LMDB code. To be called in a trap.
    [[nodiscard]] int begin_reading(MDB_txn *&out) const noexcept;

    /// The id of the newest transaction in data.mdb.
    [[nodiscard]] std::size_t last_transaction() const noexcept;

    /// Takes over the size of a map that another process has made larger (reader rule 7). To be called in a trap.
    fault grow() noexcept;

    /// The process, or thread, that holds the mutex of LMDB's writers, as lock.mdb has it; 0: none.
    [[nodiscard]] pid_t writing_process() const noexcept;

    /// The free pages of the last commit that they were read of (read_meta()).
    [[nodiscard]] free_pages &free() noexcept { return free_; }

    /// True if the paths still lead to the files that are open (reader rule 5); two calls of lstat(2).
    [[nodiscard]] bool files_are_in_place() const noexcept { return files_.are_in_place(); }

    [[nodiscard]] const store_files &files() const noexcept { return files_; }
    [[nodiscard]] const file_identity &data() const noexcept { return files_.data_identity(); }

    /// Runs a `body` that opens the store and may wait for the locks in lock.mdb, which any process that may write to
    /// it can hold forever (reader rule 13).
    template <typename Body>
    static fault bounded(unsigned wait_ms, const Body &body) noexcept
    {
        switch (trap::run_for(std::max(wait_ms, min_open_ms), body)) {
        case trap::outcome::fault: return {fault_kind::damaged};
        case trap::outcome::late: return {fault_kind::stalled};
        default: return {};
        }
    }

private:
    fault open_files(const char *folder, open_mode mode, unsigned wait_ms) noexcept;
    [[nodiscard]] bool is_open_elsewhere() const noexcept;
    fault open_environment(const char *folder, open_mode mode, unsigned wait_ms) noexcept;
    fault try_environment(const char *folder, open_mode mode) noexcept;
    fault check_mutexes() const noexcept;
    fault check_length() noexcept;
    void close_environment() noexcept;

    static environment *readers_;    ///< the environments that are open for reading
    static pid_t owner_of_readers_;  ///< the process that opened them: a child has none of their locks

    environment *next_reader_ = nullptr;
    MDB_env *env_ = nullptr;
    store_files files_;
    free_pages free_;
    std::size_t map_size_ = 0;
};

}  // namespace pat::store
