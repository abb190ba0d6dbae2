#pragma once

#include "store/pat_fault.h"
#include "store/pat_trap.h"

#include <array>
#include <climits>
#include <cstddef>
#include <optional>
#include <utility>

#include <sys/types.h>

/// The files of a store, by descriptor. A user who may write to the folder can replace a file by a link, a FIFO or a
/// device, so each must be a regular file that no link leads to, and owners and modes are set through the descriptors
/// that were checked.
namespace pat::store {

inline constexpr const char *data_file = "data.mdb";
inline constexpr const char *lock_file = "lock.mdb";
inline constexpr const char *open_lock_file = "open.lock";

/// Modes of a store's folder and files, whatever the umask (writer rule 1). Readers write to lock.mdb only, and not to
/// that of a store of root's.
inline constexpr mode_t folder_mode = 02750;
inline constexpr mode_t data_file_mode = 0640;
inline constexpr mode_t lock_file_mode = 0660;
inline constexpr mode_t roots_lock_file_mode = 0600;
inline constexpr mode_t open_lock_mode = 0640;

enum class open_mode : unsigned char {
    read,
    write,
    create,  ///< makes missing files in an existing folder
};

struct file_identity {
    dev_t device;
    ino_t inode;

    bool operator==(const file_identity &) const noexcept = default;
};

/// The file behind a descriptor; nothing if fstat(2) fails.
[[nodiscard]] std::optional<file_identity> identify(int fd) noexcept;

/// The path of a file in a folder.
class file_path {
public:
    /// False if it would be longer than PATH_MAX, as for join().
    [[nodiscard]] bool set(const char *folder, const char *file) noexcept;

    [[nodiscard]] bool join(const char *before, const char *after) noexcept;

    /// The first characters of a path.
    [[nodiscard]] bool set_start(const char *path, std::size_t length) noexcept;

    [[nodiscard]] const char *text() const noexcept { return text_.data(); }

private:
    std::array<char, PATH_MAX> text_{};
};

/// A file descriptor, closed with the object.
class descriptor {
public:
    descriptor() = default;
    explicit descriptor(int fd) noexcept : fd_{fd} {}
    descriptor(descriptor &&other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
    descriptor &operator=(descriptor &&other) noexcept
    {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~descriptor() { reset(); }

    void reset(int fd = -1) noexcept;

    /// Leaves it open until the process ends.
    void abandon() noexcept { fd_ = -1; }

    [[nodiscard]] int get() const noexcept { return fd_; }

private:
    int fd_ = -1;
};

/// The descriptors that a process has of a store's files, from before LMDB opens them until after it has closed them:
/// closing one of lock.mdb drops every lock that LMDB has on it.
class store_files {
public:
    store_files() = default;

    /// Takes the lock on open.lock that serialises opening between processes (reader rule 6), waiting for at most
    /// `wait_ms` milliseconds; 0 does not wait. Tells other PID namespaces of this one, and refuses if there is another
    /// one (reader rule 12). Opens data.mdb.
    fault open(const char *folder, open_mode mode, unsigned wait_ms) noexcept;

    /// Opens lock.mdb. Does not create it next to a data.mdb that is not a store.
    fault open_lock(open_mode mode) noexcept;

    /// Keeps LMDB from destroying the mutexes in lock.mdb, by a lock of our own (writer rule 6), until
    /// unprotect_mutexes() or close(): to be called between mdb_env_open() and mdb_env_close().
    fault protect_mutexes() const noexcept;
    void unprotect_mutexes() const noexcept;

    /// Whether lock.mdb, which is not open yet, or data.mdb is a file that the others have open: closing it would drop
    /// the locks that LMDB has on it for them.
    [[nodiscard]] bool lead_to_files_of(const store_files &other) const noexcept;

    /// Lets the next process open the store.
    void end_opening() noexcept;

    void close() noexcept;
    void abandon() noexcept;

    /// Sets the modes of the folder and its files as they stand here, and the group; only where they differ, as only
    /// the owner may.
    fault set_access(std::optional<gid_t> group) const noexcept;
    fault set_lock_file_mode() const noexcept;

    /// Waits for other writers, and keeps them out until end_writing() or the end of the process (writer rule 9).
    /// Returns `busy` when `patience` is over, and is then to be called again without one, which goes on waiting.
    fault begin_writing(const trap::deadline *patience) const noexcept;
    void end_writing() const noexcept;

    /// True if the paths still lead to the files that are open (reader rule 5); two calls of lstat(2).
    [[nodiscard]] bool are_in_place() const noexcept;

    [[nodiscard]] int folder() const noexcept { return folder_.get(); }
    [[nodiscard]] int data() const noexcept { return data_.get(); }
    [[nodiscard]] int lock() const noexcept { return lock_.get(); }
    [[nodiscard]] const file_identity &data_identity() const noexcept { return data_identity_; }
    [[nodiscard]] const file_identity &lock_identity() const noexcept { return lock_identity_; }

private:
    fault open_file(const char *file, int flags, mode_t mode, descriptor &out) const noexcept;
    fault wait_for_turn(unsigned wait_ms) const noexcept;
    fault claim_namespace() const noexcept;

    descriptor folder_;
    descriptor opening_;
    descriptor data_;
    descriptor lock_;
    file_path data_path_;
    file_path lock_path_;
    file_identity data_identity_{};
    file_identity lock_identity_{};
};

}  // namespace pat::store
