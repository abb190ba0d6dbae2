#pragma once

#include "store/pat_fault.h"

#include <array>
#include <climits>
#include <cstddef>

#include <sys/types.h>

struct MDB_env;
struct MDB_txn;

/// Opening and closing a store's LMDB environment: the part of the rules of docs/store-format.md, "Readers" and
/// "Writers", that both have in common.
namespace pat::store {

/// Address space, not disk, and the same everywhere (reader rule 7): about 200 million tokens.
inline constexpr std::size_t default_map_size = std::size_t{32} << 30;

/// The first to open a store sizes its reader table, so this is the same everywhere, too.
inline constexpr unsigned max_readers = 1024;

inline constexpr const char *data_file = "data.mdb";
inline constexpr const char *lock_file = "lock.mdb";
inline constexpr const char *open_lock_file = "open.lock";

/// How long a command waits for others that are opening the store. nginx workers take a millisecond each.
inline constexpr unsigned command_wait_ms = 10000;

enum class open_mode : unsigned char { read, write };

/// Modes of a store's folder and files, whatever the umask (writer rule 1). Readers write to lock.mdb only.
inline constexpr mode_t folder_mode = 02750;
inline constexpr mode_t data_file_mode = 0640;
inline constexpr mode_t lock_file_mode = 0660;
inline constexpr mode_t open_lock_mode = 0640;

struct file_identity {
    dev_t device;
    ino_t inode;

    bool operator==(const file_identity &) const noexcept = default;
};

/// The path of a file in a folder.
class file_path {
public:
    /// False if it would be longer than PATH_MAX, as for join().
    [[nodiscard]] bool set(const char *folder, const char *file) noexcept;

    [[nodiscard]] bool join(const char *before, const char *after) noexcept;

    [[nodiscard]] const char *text() const noexcept { return text_.data(); }

private:
    std::array<char, PATH_MAX> text_{};
};

/// Whether this LMDB may be used at all (writer rule 6).
fault check_library() noexcept;

/// Reads the header of data.mdb with pread(2), never through LMDB (reader rule 8): magic, version, page size, and that
/// the file reaches to the roots of its trees.
fault check_data_file(const char *path) noexcept;

/// The lock on open.lock that serialises opening between processes (reader rule 6), while it lives.
class open_lock {
public:
    open_lock() = default;
    open_lock(const open_lock &) = delete;
    open_lock &operator=(const open_lock &) = delete;
    ~open_lock();

    /// Waits for at most `wait_ms` milliseconds; 0 does not wait.
    fault acquire(const char *folder, unsigned wait_ms) noexcept;

private:
    int fd_ = -1;
};

/// An open environment. It must be opened after fork(2) (reader rule 1), and one store only once in a process: LMDB's
/// file locks would vanish with the first of two to be closed.
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
    void abandon() noexcept { env_ = nullptr; }

    [[nodiscard]] bool is_open() const noexcept { return env_ != nullptr; }
    [[nodiscard]] MDB_env *get() const noexcept { return env_; }

    /// Begins a read transaction, and frees the slots of dead readers first if there is none left (reader rule 7).
    /// Returns an LMDB code. To be called in a trap.
    [[nodiscard]] int begin_reading(MDB_txn *&out) const noexcept;

    /// The transaction id of the newest commit in data.mdb.
    [[nodiscard]] std::size_t last_commit() const noexcept;

    /// True if the paths still lead to the files that are open (reader rule 5); two calls of stat(2).
    [[nodiscard]] bool files_are_in_place() const noexcept;

    [[nodiscard]] const file_identity &data() const noexcept { return data_; }

private:
    fault open_environment(const char *folder, open_mode mode, std::size_t map_size) noexcept;
    fault check_length(int fd) const noexcept;

    MDB_env *env_ = nullptr;
    file_path data_path_;
    file_path lock_path_;
    file_identity data_{};
    file_identity lock_{};
};

}  // namespace pat::store
