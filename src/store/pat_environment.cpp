#include "store/pat_environment.h"

#include "core/pat_bytes.h"
#include "store/pat_trap.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <lmdb.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace pat::store {

namespace {

/// The two meta pages at the start of an LMDB 0.9 file, as 64-bit little-endian machines write them (LMDB, mdb.c:
/// MDB_page, MDB_meta). LMDB files are not portable between word sizes and byte orders, and neither is this.
namespace lmdb_header {
constexpr std::size_t page_header_length = 16;
constexpr std::size_t magic = page_header_length;
constexpr std::size_t version = magic + 4;
constexpr std::size_t page_size = version + 4 + 8 + 8;
constexpr std::size_t free_root = page_size + 40;
constexpr std::size_t main_root = free_root + 48;
constexpr std::size_t transaction = main_root + 8 + 8;
constexpr std::size_t length = transaction + 8;

constexpr std::uint32_t right_magic = 0xBEEFC0DE;
constexpr std::uint32_t right_version = 1;
constexpr std::size_t min_page_size = 512;
constexpr std::size_t max_page_size = 65536;
}  // namespace lmdb_header

static_assert(sizeof(std::size_t) == 8, "the header of an LMDB file is read as a 64-bit machine writes it");

/// A file descriptor that is closed when it goes out of scope.
class descriptor {
public:
    explicit descriptor(int fd) noexcept : fd_{fd} {}
    descriptor(const descriptor &) = delete;
    descriptor &operator=(const descriptor &) = delete;
    ~descriptor()
    {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }

    [[nodiscard]] int get() const noexcept { return fd_; }

private:
    int fd_;
};

struct meta_page {
    std::size_t page_size = lmdb_header::min_page_size;
    std::array<std::uint64_t, 2> roots{};  ///< page numbers, of the tree of free pages and of the main one
    std::uint64_t transaction = 0;
};

fault read_meta_page(int fd, std::size_t offset, meta_page &out) noexcept
{
    std::array<std::byte, lmdb_header::length> bytes;

    const ssize_t got = pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0) {
        return from_errno(errno);
    }
    if (got != static_cast<ssize_t>(bytes.size())) {
        return {fault_kind::truncated};
    }
    if (load_le<std::uint32_t>(&bytes[lmdb_header::magic]) != lmdb_header::right_magic) {
        return {fault_kind::not_a_store};
    }
    if (load_le<std::uint32_t>(&bytes[lmdb_header::version]) != lmdb_header::right_version) {
        return {fault_kind::newer_lmdb};
    }

    out.page_size = load_le<std::uint32_t>(&bytes[lmdb_header::page_size]);
    out.roots = {load_le<std::uint64_t>(&bytes[lmdb_header::free_root]),
                 load_le<std::uint64_t>(&bytes[lmdb_header::main_root])};
    out.transaction = load_le<std::uint64_t>(&bytes[lmdb_header::transaction]);

    if (!std::has_single_bit(out.page_size) || out.page_size < lmdb_header::min_page_size
        || out.page_size > lmdb_header::max_page_size) {
        return {fault_kind::damaged};
    }
    return {};
}

file_identity identity_of(const struct stat &info) noexcept
{
    return {info.st_dev, info.st_ino};
}

bool leads_to(const file_path &path, const file_identity &file) noexcept
{
    struct stat info;
    return stat(path.text(), &info) == 0 && identity_of(info) == file;
}

}  // namespace

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

fault check_library() noexcept
{
    int major;
    int minor;
    int patch;
    mdb_version(&major, &minor, &patch);

    if (major != 0 || minor != 9 || (patch >= 26 && patch <= 31)) {
        return {fault_kind::bad_library};
    }
    return {};
}

fault check_data_file(const char *path) noexcept
{
    const descriptor file{::open(path, O_RDONLY | O_CLOEXEC)};
    if (file.get() < 0) {
        return from_errno(errno);
    }

    meta_page first;
    if (const fault problem = read_meta_page(file.get(), 0, first)) {
        return problem;
    }

    meta_page second;
    if (const fault problem = read_meta_page(file.get(), first.page_size, second)) {
        return problem;
    }

    struct stat info;
    if (fstat(file.get(), &info) != 0) {
        return from_errno(errno);
    }

    const meta_page &newest = first.transaction > second.transaction ? first : second;
    if (newest.page_size != first.page_size) {
        return {fault_kind::damaged};
    }

    // Not the last page: LMDB leaves pages at the end unwritten that a transaction took and gave back. What else is
    // missing is found out when it is read, in a trap.
    const std::uint64_t pages = static_cast<std::uint64_t>(info.st_size) / newest.page_size;
    for (const std::uint64_t root : newest.roots) {
        constexpr std::uint64_t empty_tree = ~std::uint64_t{0};
        if (root != empty_tree && root >= pages) {
            return {fault_kind::truncated};
        }
    }
    return {};
}

fault open_lock::acquire(const char *folder, unsigned wait_ms) noexcept
{
    constexpr unsigned step_ms = 1;

    file_path path;
    if (!path.set(folder, open_lock_file)) {
        return from_errno(ENAMETOOLONG);
    }

    fd_ = ::open(path.text(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) {
        return from_errno(errno);
    }

    for (unsigned waited = 0; flock(fd_, LOCK_EX | LOCK_NB) != 0; waited += step_ms) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return from_errno(errno);
        }
        if (waited >= wait_ms) {
            return {fault_kind::busy};
        }
        constexpr timespec step{0, step_ms * 1000000L};
        nanosleep(&step, nullptr);
    }
    return {};
}

open_lock::~open_lock()
{
    if (fd_ >= 0) {
        ::close(fd_);
    }
}

fault environment::open(const char *folder, open_mode mode, std::size_t map_size, unsigned wait_ms) noexcept
{
    close();

    if (const fault problem = check_library()) {
        return problem;
    }
    if (!data_path_.set(folder, data_file) || !lock_path_.set(folder, lock_file)) {
        return from_errno(ENAMETOOLONG);
    }

    open_lock lock;
    if (const fault problem = lock.acquire(folder, wait_ms)) {
        const bool has_data = faccessat(AT_FDCWD, data_path_.text(), F_OK, AT_EACCESS) == 0;
        return problem.kind == fault_kind::absent && has_data ? fault{fault_kind::no_lock_file, problem.code} : problem;
    }
    if (const fault problem = check_data_file(data_path_.text())) {
        return problem;
    }

    // A reader leaves the making of files to the writer, but mdb_env_open() would make lock.mdb (reader rule 10).
    if (mode == open_mode::read && faccessat(AT_FDCWD, lock_path_.text(), R_OK | W_OK, AT_EACCESS) != 0) {
        return {errno == EROFS ? fault_kind::read_only : fault_kind::no_lock_file, errno};
    }

    trap::install();

    fault problem;
    if (!trap::run([&] { problem = open_environment(folder, mode, map_size); })) {
        problem = {fault_kind::damaged};
    }
    if (problem) {
        close();
    }
    return problem;
}

fault environment::open_environment(const char *folder, open_mode mode, std::size_t map_size) noexcept
{
    int code = mdb_env_create(&env_);
    if (code != 0) {
        env_ = nullptr;
        return from_lmdb(code);
    }

    if ((code = mdb_env_set_assert(env_, trap::failed_assertion)) != 0
        || (code = mdb_env_set_mapsize(env_, map_size)) != 0 || (code = mdb_env_set_maxreaders(env_, max_readers)) != 0
        || (code = mdb_env_open(env_, folder, MDB_NOTLS | (mode == open_mode::read ? MDB_RDONLY : 0), data_file_mode))
               != 0) {
        return from_lmdb(code);
    }

    int fd;
    struct stat info;
    struct statvfs file_system;
    if ((code = mdb_env_get_fd(env_, &fd)) != 0) {
        return from_lmdb(code);
    }
    if (fstat(fd, &info) != 0 || fstatvfs(fd, &file_system) != 0) {
        return from_errno(errno);
    }
    if ((file_system.f_flag & ST_RDONLY) != 0) {
        return {fault_kind::read_only};
    }
    data_ = identity_of(info);

    if (const fault problem = check_length(fd)) {
        return problem;
    }

    if (stat(lock_path_.text(), &info) != 0) {
        return from_errno(errno);
    }
    lock_ = identity_of(info);

    return {};
}

/// That the file is as long as its last page says, but for free pages at its end, which LMDB does not write if a
/// transaction took and gave them back. Runs in a trap.
fault environment::check_length(int fd) const noexcept
{
    constexpr int max_tries = 3;  // a commit may just be published, or never be
    for (int tries = 0; tries < max_tries; tries++) {
        MDB_envinfo info;
        MDB_stat tree;
        struct stat file;
        mdb_env_info(env_, &info);
        mdb_env_stat(env_, &tree);
        if (fstat(fd, &file) != 0) {
            return from_errno(errno);
        }

        const std::size_t pages = static_cast<std::size_t>(file.st_size) / tree.ms_psize;
        if (info.me_last_pgno < pages) {
            return {};
        }

        MDB_txn *transaction;
        MDB_cursor *cursor;
        int code = begin_reading(transaction);
        if (code != 0) {
            return from_lmdb(code);
        }

        constexpr MDB_dbi free_pages = 0;  // LMDB, mdb_stat.c: each value is a count and that many page numbers
        std::size_t missing = info.me_last_pgno + 1 - pages;
        const bool is_same_commit = mdb_txn_id(transaction) == info.me_last_txnid;
        if (is_same_commit && (code = mdb_cursor_open(transaction, free_pages, &cursor)) == 0) {
            MDB_val key;
            MDB_val value;
            while (missing != 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
                const auto *list = static_cast<const std::size_t *>(value.mv_data);
                for (std::size_t i = 1; i < value.mv_size / sizeof *list && i <= list[0]; i++) {
                    missing -= list[i] >= pages && list[i] <= info.me_last_pgno ? 1 : 0;
                }
            }
            mdb_cursor_close(cursor);
        }
        mdb_txn_abort(transaction);

        if (is_same_commit) {
            if (code != 0 && code != MDB_NOTFOUND) {
                return from_lmdb(code);
            }
            return missing == 0 ? fault{} : fault{fault_kind::truncated};
        }
    }
    return {};
}

void environment::close() noexcept
{
    if (env_ == nullptr) {
        return;
    }

    // Closing clears our slots in lock.mdb, which is mapped, too. If that fails there is nothing left to free.
    (void) trap::run([this] { mdb_env_close(env_); });
    env_ = nullptr;
}

int environment::begin_reading(MDB_txn *&out) const noexcept
{
    const int code = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &out);
    if (code != MDB_READERS_FULL) {
        return code;
    }

    int dead;
    mdb_reader_check(env_, &dead);
    return mdb_txn_begin(env_, nullptr, MDB_RDONLY, &out);
}

std::size_t environment::last_commit() const noexcept
{
    MDB_envinfo info;
    mdb_env_info(env_, &info);
    return info.me_last_txnid;
}

bool environment::files_are_in_place() const noexcept
{
    return leads_to(data_path_, data_) && leads_to(lock_path_, lock_);
}

}  // namespace pat::store
