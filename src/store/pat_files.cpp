#include "store/pat_files.h"

#include "store/pat_clock.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pat::store {

namespace {

/// The mode of a lock.mdb that this process owns.
mode_t own_lock_file_mode() noexcept
{
    return geteuid() == 0 ? roots_lock_file_mode : lock_file_mode;
}

/// The second use of open.lock, besides flock(2). Its locks belong to an open file description (F_OFD_SETLK): they do
/// not depend on PIDs and end with the process. A process that has the store open holds a read lock on the byte whose
/// offset is the inode of its PID namespace; inodes of namespaces are far from 0.
constexpr off_t writers_byte = 0;
constexpr off_t namespaces_begin = 1;

constexpr off_t to_the_end = 0;

/// The byte of lock.mdb that LMDB locks: to read while it is open, to write while it initialises the file.
constexpr off_t lmdbs_byte = 0;

/// The byte of data.mdb that the writer has locked whose turn is next.
constexpr off_t next_writers_byte = 0;

struct flock byte_range(short type, off_t begin, off_t length) noexcept
{
    struct flock result {};
    result.l_type = type;
    result.l_whence = SEEK_SET;
    result.l_start = begin;
    result.l_len = length;
    return result;
}

/// Locks a byte to write, or returns `busy` when the patience is over, if there is a limit to it.
fault wait_for_byte(const descriptor &file, off_t byte, const trap::deadline *patience) noexcept
{
    struct flock own = byte_range(F_WRLCK, byte, 1);
    while (fcntl(file.get(), F_OFD_SETLKW, &own) != 0) {
        if (errno != EINTR) {
            return from_errno(errno);
        }
        if (patience != nullptr && patience->is_over()) {
            return {fault_kind::busy};
        }
    }
    return {};
}

void unlock_byte(const descriptor &file, off_t byte) noexcept
{
    struct flock own = byte_range(F_UNLCK, byte, 1);
    (void) fcntl(file.get(), F_OFD_SETLK, &own);
}

fault not_regular(const char *file) noexcept
{
    constexpr const char *files[] = {data_file, lock_file, open_lock_file};
    int number = 0;
    while (files[number] != file) {
        number++;
    }
    return {fault_kind::not_regular, number + 1};
}

fault set_mode(int fd, mode_t mode, std::optional<gid_t> group) noexcept
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return from_errno(errno);
    }
    if (group && info.st_gid != *group && fchown(fd, static_cast<uid_t>(-1), *group) != 0) {
        return from_errno(errno);
    }
    if ((info.st_mode & 07777) != mode && fchmod(fd, mode) != 0) {
        return from_errno(errno);
    }
    return {};
}

fault identify_file(const descriptor &file, file_identity &out) noexcept
{
    const auto identity = identify(file.get());
    if (!identity) {
        return from_errno(errno);
    }
    out = *identity;
    return {};
}

bool leads_to(const file_path &path, const file_identity &wanted) noexcept
{
    struct stat info;
    return lstat(path.text(), &info) == 0 && file_identity{info.st_dev, info.st_ino} == wanted;
}

}  // namespace

std::optional<file_identity> identify(int fd) noexcept
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return std::nullopt;
    }
    return file_identity{info.st_dev, info.st_ino};
}

bool file_path::set_start(const char *path, std::size_t length) noexcept
{
    if (length >= text_.size()) {
        return false;
    }
    std::memcpy(text_.data(), path, length);
    text_[length] = '\0';
    return true;
}

bool file_path::set(const char *folder, const char *file) noexcept
{
    return join(folder, "/") && join(text_.data(), file);
}

bool file_path::join(const char *before, const char *after) noexcept
{
    const std::size_t length = std::strlen(before);
    const std::size_t more = std::strlen(after);

    if (length + more >= text_.size()) {
        return false;
    }

    std::memmove(text_.data(), before, length);
    std::memcpy(text_.data() + length, after, more + 1);
    return true;
}

void descriptor::reset(int fd) noexcept
{
    if (fd_ >= 0) {
        ::close(fd_);
    }
    fd_ = fd;
}

/// Opens a file of the folder, or makes it if the flags say so.
fault store_files::open_file(const char *file, int flags, mode_t mode, descriptor &out) const noexcept
{
    struct stat folder;
    if (fstat(folder_.get(), &folder) != 0) {
        return from_errno(errno);
    }
    // Through a hard link, the process would write to a file of another user.
    const auto is_wrong = [&](const struct stat &found) {
        return !S_ISREG(found.st_mode) || (found.st_nlink > 1 && found.st_uid != folder.st_uid);
    };

    // Opening a device can have side effects, and closing the lock.mdb of another store drops the locks that this
    // process has on it.
    struct stat info;
    if (fstatat(folder_.get(), file, &info, AT_SYMLINK_NOFOLLOW) == 0 && is_wrong(info)) {
        return not_regular(file);
    }

    out.reset(openat(folder_.get(), file, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode));
    if (out.get() < 0) {
        return errno == ELOOP ? not_regular(file) : from_errno(errno);
    }
    if (fstat(out.get(), &info) != 0) {
        return from_errno(errno);
    }
    return is_wrong(info) ? not_regular(file) : fault{};
}

fault store_files::wait_for_turn(unsigned wait_ms) const noexcept
{
    const time_limit limit{wait_ms};
    while (flock(opening_.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return from_errno(errno);
        }
        if (!limit.wait()) {
            return {fault_kind::busy};
        }
    }
    return {};
}

/// LMDB knows processes by their PIDs. If two have the same PID, or one can't see the other, LMDB takes a living
/// process for dead: it reuses pages under a reader, and lets two writers write at once.
fault store_files::claim_namespace() const noexcept
{
    struct stat info;
    if (stat("/proc/self/ns/pid", &info) != 0) {
        return {fault_kind::no_namespace, errno};
    }
    const auto ours = static_cast<off_t>(info.st_ino);

    struct flock own = byte_range(F_RDLCK, ours, 1);
    if (fcntl(opening_.get(), F_OFD_SETLK, &own) != 0) {
        return from_errno(errno);
    }

    struct flock before = byte_range(F_WRLCK, namespaces_begin, ours - namespaces_begin);
    struct flock behind = byte_range(F_WRLCK, ours + 1, to_the_end);
    for (struct flock *lock : {&before, &behind}) {
        if (fcntl(opening_.get(), F_OFD_GETLK, lock) != 0) {
            return from_errno(errno);
        }
        if (lock->l_type != F_UNLCK) {
            return {fault_kind::other_namespace};
        }
    }
    return {};
}

fault store_files::open(const char *folder, open_mode mode, unsigned wait_ms) noexcept
{
    const bool makes = mode == open_mode::create;
    const int access = mode == open_mode::read ? O_RDONLY : O_RDWR;

    if (!data_path_.set(folder, data_file) || !lock_path_.set(folder, lock_file)) {
        return from_errno(ENAMETOOLONG);
    }

    // Open for changes only a folder to create files in; otherwise the right to pass through is enough.
    folder_.reset(::open(folder, O_DIRECTORY | O_CLOEXEC | (makes ? O_RDONLY | O_NOFOLLOW : O_PATH)));
    if (folder_.get() < 0) {
        return from_errno(errno);
    }

    if (const fault problem = open_file(open_lock_file, access | (makes ? O_CREAT : 0), open_lock_mode, opening_)) {
        const bool has_data = faccessat(folder_.get(), data_file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
        return problem.kind == fault_kind::absent && has_data ? fault{fault_kind::no_lock_file, problem.code} : problem;
    }
    if (const fault problem = wait_for_turn(wait_ms)) {
        return problem;
    }
    if (const fault problem = claim_namespace()) {
        return problem;
    }
    const fault problem = open_file(data_file, access | (makes ? O_CREAT : 0), data_file_mode, data_);
    return problem ? problem : identify_file(data_, data_identity_);
}

fault store_files::open_lock(open_mode mode) noexcept
{
    // Only writers create files, but mdb_env_open() would create lock.mdb for a reader (reader rule 10).
    const bool reads = mode == open_mode::read;
    const fault problem = open_file(lock_file, O_RDWR | (reads ? 0 : O_CREAT), own_lock_file_mode(), lock_);

    if (reads && (problem.kind == fault_kind::absent || problem.kind == fault_kind::denied)) {
        return {fault_kind::no_lock_file, problem.code};
    }
    return problem ? problem : identify_file(lock_, lock_identity_);
}

fault store_files::protect_mutexes() const noexcept
{
    struct flock own = byte_range(F_RDLCK, lmdbs_byte, 1);
    return fcntl(lock_.get(), F_OFD_SETLK, &own) == 0 ? fault{} : from_errno(errno);
}

void store_files::unprotect_mutexes() const noexcept
{
    unlock_byte(lock_, lmdbs_byte);
}

bool store_files::lead_to_files_of(const store_files &other) const noexcept
{
    struct stat info;
    const bool has_lock = fstatat(folder_.get(), lock_file, &info, AT_SYMLINK_NOFOLLOW) == 0;
    return data_identity_ == other.data_identity_
           || (has_lock && file_identity{info.st_dev, info.st_ino} == other.lock_identity_);
}

void store_files::end_opening() noexcept
{
    flock(opening_.get(), LOCK_UN);
}

void store_files::close() noexcept
{
    lock_.reset();
    data_.reset();
    opening_.reset();
    folder_.reset();
}

void store_files::abandon() noexcept
{
    lock_.abandon();
    data_.abandon();
    opening_.abandon();
    folder_.abandon();
}

fault store_files::set_access(std::optional<gid_t> group) const noexcept
{
    const struct {
        int fd;
        mode_t mode;
    } wanted[] = {
        {folder_.get(), folder_mode},
        {data_.get(), data_file_mode},
        {lock_.get(), own_lock_file_mode()},
        {opening_.get(), open_lock_mode},
    };
    for (const auto &[fd, mode] : wanted) {
        if (const fault problem = set_mode(fd, mode, group)) {
            return problem;
        }
    }
    return {};
}

fault store_files::set_lock_file_mode() const noexcept
{
    struct stat info;
    if (fstat(lock_.get(), &info) != 0) {
        return from_errno(errno);
    }
    return info.st_uid == geteuid() ? set_mode(lock_.get(), own_lock_file_mode(), std::nullopt) : fault{};
}

/// The kernel wakes up who waits for a lock, but does not hand it over: a writer that comes back at once would take it
/// again before. Here it finds the lock of who is next.
fault store_files::begin_writing(const trap::deadline *patience) const noexcept
{
    fault problem;
    if (patience != nullptr) {
        problem = wait_for_byte(data_, next_writers_byte, patience);
    }
    if (!problem) {
        problem = wait_for_byte(opening_, writers_byte, patience);
    }
    if (problem.kind != fault_kind::busy) {
        unlock_byte(data_, next_writers_byte);
    }
    return problem;
}

void store_files::end_writing() const noexcept
{
    unlock_byte(opening_, writers_byte);
}

bool store_files::are_in_place() const noexcept
{
    return leads_to(data_path_, data_identity_) && leads_to(lock_path_, lock_identity_);
}

}  // namespace pat::store
