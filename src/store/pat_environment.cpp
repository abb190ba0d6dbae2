#include "store/pat_environment.h"

#include "core/pat_bytes.h"
#include "store/pat_clock.h"
#include "store/pat_lmdb.h"
#include "store/pat_lmdb_header.h"
#include "store/pat_ownership.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <span>

#include <fcntl.h>
#include <linux/futex.h>
#include <lmdb.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace pat::store {

namespace {

struct meta_page {
    std::size_t page_size = lmdb_header::min_page_size;
    std::array<std::uint64_t, 2> roots{};  ///< page numbers, of the tree of free pages and of the main one
    std::uint64_t map_size = 0;
    std::uint64_t last_page = 0;
    std::uint64_t transaction = 0;
};

/// Where lock.mdb has the mutexes, and the number of the commit that was published last. (LMDB, mdb.c: MDB_txninfo)
constexpr off_t readers_mutex_at = 8;
constexpr off_t published_at = 48;
constexpr off_t writers_mutex_at = 64;

fault read_meta_page(int fd, std::size_t offset, meta_page &out) noexcept
{
    std::array<std::byte, lmdb_header::length> bytes;

    const ssize_t length = pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (length < 0) {
        return from_errno(errno);
    }
    if (length != static_cast<ssize_t>(bytes.size())) {
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
    out.map_size = load_le<std::uint64_t>(&bytes[lmdb_header::map_size]);
    out.last_page = load_le<std::uint64_t>(&bytes[lmdb_header::last_page]);
    out.transaction = load_le<std::uint64_t>(&bytes[lmdb_header::transaction]);

    if (!std::has_single_bit(out.page_size) || out.page_size < lmdb_header::min_page_size
        || out.page_size > lmdb_header::max_page_size) {
        return {fault_kind::damaged};
    }
    return {};
}

/// Reads both meta pages.
fault read_meta_pages(int fd, meta_page &first, meta_page &second) noexcept
{
    const fault problem = read_meta_page(fd, 0, first);
    return problem ? problem : read_meta_page(fd, first.page_size, second);
}

/// Whether the numbers of the transactions that wrote the two pages can be right: LMDB writes the pages in turn, the
/// second one in transactions with odd numbers. With a damaged number, the earlier commit would be taken for the newest
/// one, and tokens that were revoked since would be good again.
bool are_in_turn(const meta_page &first, const meta_page &second) noexcept
{
    const bool is_new = first.transaction == 0 && second.transaction == 0;
    return is_new
           || (first.transaction % 2 == 0
               && (first.transaction + 1 == second.transaction || first.transaction == second.transaction + 1));
}

/// Finds the transaction that added the last entry to the list of free pages of a meta page, 0 if the list is empty.
/// Each transaction frees the page that was the root before, but the first of a store or of a compacted copy.
fault find_last_to_free(int fd, const meta_page &meta, std::uint64_t &out) noexcept
{
    std::uint64_t page = meta.roots[0];
    if (page == no_page) {
        out = 0;
        return {};
    }
    for (unsigned depth = 0; depth < max_depth; depth++) {
        std::array<std::byte, page_offset::nodes> header{};
        std::array<std::byte, sizeof(std::uint16_t)> offset{};
        std::array<std::byte, node_offset::key + sizeof(std::uint64_t)> node{};

        const auto begin = static_cast<off_t>(page * meta.page_size);
        if (pread(fd, header.data(), header.size(), begin) < 0) {
            return from_errno(errno);
        }
        const off_t last_offset = load_le<std::uint16_t>(&header[page_offset::lower]) - off_t{sizeof(std::uint16_t)};
        if (last_offset < off_t{page_offset::nodes}) {
            break;
        }
        if (pread(fd, offset.data(), offset.size(), begin + last_offset) < 0
            || pread(fd, node.data(), node.size(), begin + load_le<std::uint16_t>(offset.data())) < 0) {
            return from_errno(errno);
        }
        if (load_le<std::uint16_t>(&header[page_offset::flags]) != page_kind::branch) {
            out = load_le<std::uint64_t>(&node[node_offset::key]);
            return {};
        }
        page = child_at(node.data());
    }
    return {fault_kind::damaged};
}

/// Whether the lists of free pages are of the transactions that are said to have written the meta pages. If not, the
/// number of one is damaged, and may make the earlier commit the newest.
fault check_lists(int data_file, int lock_file, const meta_page &first, const meta_page &second) noexcept
{
    const bool is_first_newest = first.transaction > second.transaction;
    const meta_page &newest = is_first_newest ? first : second;
    const meta_page &earlier = is_first_newest ? second : first;

    std::uint64_t list = 0;
    if (const fault problem = find_last_to_free(data_file, newest, list)) {
        return problem;
    }
    if (list != (newest.transaction > 1 ? newest.transaction : 0)) {
        return {fault_kind::damaged};
    }

    // When writing the page has failed, LMDB puts the old number back, and nothing else. Later commits then write over
    // the list, and it may look like anything; but what it belongs to was never published.
    const fault problem = find_last_to_free(data_file, earlier, list);
    if (problem.kind == fault_kind::damaged || (!problem && list <= newest.transaction)) {
        return {};
    }
    if (problem) {
        return problem;
    }
    std::uint64_t published = 0;
    if (pread(lock_file, &published, sizeof published, published_at) < 0) {
        return from_errno(errno);
    }
    const bool is_last = published == newest.transaction || published + 1 == newest.transaction;
    return is_last ? fault{} : fault{fault_kind::damaged};
}

bool is_same(const meta_page &first, const meta_page &second) noexcept
{
    return first.transaction == second.transaction && first.roots == second.roots;
}

/// Looks at both meta pages once more, with what tells more about the order of their commits. If they are not as they
/// should be, and have changed meanwhile, the writer has used pages of a list again: then looks again.
fault check_order(int data_file, int lock_file) noexcept
{
    constexpr int max_tries = 100;

    meta_page pages[2];
    meta_page before[2];
    fault problem = read_meta_pages(data_file, pages[0], pages[1]);
    for (int tries = 0; !problem && tries < max_tries; tries++) {
        const fault damage = check_lists(data_file, lock_file, pages[0], pages[1]);
        if (damage.kind != fault_kind::damaged) {
            return damage;
        }
        std::ranges::copy(pages, before);
        problem = read_meta_pages(data_file, pages[0], pages[1]);
        if (!problem && std::ranges::equal(pages, before, is_same)) {
            return damage;
        }
    }
    return problem ? problem : fault{fault_kind::damaged};
}

/// The numbers that the next files to be opened will get.
std::array<int, 3> next_descriptors(int any) noexcept
{
    std::array<int, 3> result;
    for (int &fd : result) {
        fd = fcntl(any, F_DUPFD_CLOEXEC, 0);
    }
    for (const int fd : result) {
        ::close(fd);
    }
    return result;
}

bool read_mutex(int lock_file, off_t at, pthread_mutex_t &out) noexcept
{
    return pread(lock_file, &out, sizeof out, at) == static_cast<ssize_t>(sizeof out);
}

/// Whether the mutexes in lock.mdb are of the kind that LMDB makes, or destroyed, which locking them tells. The C
/// library ends a process that locks one whose kind is damaged. (LMDB, mdb.c: mdb_env_setup_locks)
bool have_right_kind(int lock_file) noexcept
{
    constexpr off_t mutexes_at[] = {readers_mutex_at, writers_mutex_at};
    constexpr int destroyed = -1;

    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t right;
    pthread_mutex_init(&right, &attributes);
    pthread_mutexattr_destroy(&attributes);

    return std::ranges::all_of(mutexes_at, [&](off_t at) {
        pthread_mutex_t found;
        return read_mutex(lock_file, at, found)
               && (found.__data.__kind == right.__data.__kind || found.__data.__kind == destroyed);
    });
}

}  // namespace

fault check_library() noexcept
{
    int major;
    int minor;
    int patch;
    mdb_version(&major, &minor, &patch);

    return major == 0 && minor == 9 ? fault{} : fault{fault_kind::bad_library};
}

fault check_data_file(int fd, std::size_t map_size) noexcept
{
    constexpr int max_tries = 3;  // there may be commits while the pages are read

    meta_page first;
    meta_page second;
    for (int tries = 1;; tries++) {
        if (const fault problem = read_meta_pages(fd, first, second)) {
            return problem;
        }
        if (are_in_turn(first, second)) {
            break;
        }
        if (tries == max_tries) {
            return {fault_kind::damaged};
        }
    }

    struct stat info;
    if (fstat(fd, &info) != 0) {
        return from_errno(errno);
    }

    const meta_page &newest = first.transaction > second.transaction ? first : second;
    if (newest.page_size != first.page_size) {
        return {fault_kind::damaged};
    }

    // LMDB maps as much as the file asks for. Check both pages, as a transaction may be committed to the other one.
    const std::size_t limit = std::max(map_size, max_map_size);
    for (const meta_page *page : {&first, &second}) {
        if (page->map_size > limit || page->last_page >= limit / newest.page_size) {
            return {fault_kind::damaged};
        }
    }

    // Do not check the last page: LMDB leaves pages at the end unwritten that a transaction took and gave back. A trap
    // finds other missing pages when they are read.
    const std::uint64_t pages = static_cast<std::uint64_t>(info.st_size) / newest.page_size;
    for (const std::uint64_t root : newest.roots) {
        if (root != no_page && root >= pages) {
            return {fault_kind::truncated};
        }
    }
    return {};
}

fault environment::open(const char *folder, open_mode mode, std::size_t map_size, unsigned wait_ms) noexcept
{
    close();
    map_size_ = map_size;

    if (const fault problem = check_library()) {
        return problem;
    }
    if (const fault problem = check_for_root(folder)) {
        return problem;
    }

    fault problem = open_files(folder, mode, wait_ms);
    if (!problem) {
        trap::install();
        problem = open_environment(folder, mode, wait_ms);
    }

    if (problem) {
        close();
        return problem;
    }
    files_.end_opening();
    if (mode == open_mode::read) {
        next_reader_ = owner_of_readers_ == getpid() ? readers_ : nullptr;
        readers_ = this;
        owner_of_readers_ = getpid();
    }
    return {};
}

environment *environment::readers_;
pid_t environment::owner_of_readers_;

bool environment::is_open_elsewhere() const noexcept
{
    if (owner_of_readers_ != getpid()) {
        return false;
    }
    for (const environment *other = readers_; other != nullptr; other = other->next_reader_) {
        if (files_.lead_to_files_of(other->files_)) {
            return true;
        }
    }
    return false;
}

/// Opens and checks the files that LMDB will open again.
fault environment::open_files(const char *folder, open_mode mode, unsigned wait_ms) noexcept
{
    if (const fault problem = files_.open(folder, mode, wait_ms)) {
        return problem;
    }

    struct stat data;
    struct statvfs file_system;
    if (fstat(files_.data(), &data) != 0 || fstatvfs(files_.data(), &file_system) != 0) {
        return from_errno(errno);
    }

    // A file shorter than the two pages of a header was left by an interrupted creation, and LMDB refuses it.
    const bool is_new = mode == open_mode::create && data.st_size < 2 * sysconf(_SC_PAGESIZE);
    if (is_new) {
        if (data.st_size != 0 && ftruncate(files_.data(), 0) != 0) {
            return from_errno(errno);
        }
    } else if (const fault problem = check_data_file(files_.data(), map_size_)) {
        return problem;
    }

    if (mode == open_mode::read && is_open_elsewhere()) {
        return {fault_kind::same_store_twice};
    }
    if (const fault problem = files_.open_lock(mode)) {
        return problem;
    }
    if (const fault problem = is_new ? fault{} : check_order(files_.data(), files_.lock())) {
        return problem;
    }
    if ((file_system.f_flag & ST_RDONLY) != 0) {
        return {fault_kind::read_only};
    }

    struct stat lock;
    if (fstat(files_.lock(), &lock) != 0) {
        return from_errno(errno);
    }
    return lock.st_size > max_lock_file_size ? fault{fault_kind::bad_lock_file} : fault{};
}

/// Has LMDB open the files, and again if the mutexes in lock.mdb are destroyed (writer rule 6): LMDB initialises the
/// file if nobody else has it open.
fault environment::open_environment(const char *folder, open_mode mode, unsigned wait_ms) noexcept
{
    const time_limit limit{std::min(wait_ms, max_healing_ms)};
    for (int tries = 1;; tries++) {
        fault problem;
        const fault cut_short = bounded(wait_ms, [&] { problem = try_environment(folder, mode); });
        if (cut_short) {
            return cut_short;
        }
        if (problem.kind != fault_kind::lost_mutexes) {
            return problem;
        }
        close_environment();  // in between, the locks of the other program alone can be in the way
        if (tries > 1 && !limit.wait()) {
            return problem;
        }
    }
}

/// Runs in a trap.
fault environment::try_environment(const char *folder, open_mode mode) noexcept
{
    int code = mdb_env_create(&env_);
    if (code != 0) {
        env_ = nullptr;
        return from_lmdb(code);
    }

    const std::array<int, 3> next = next_descriptors(files_.data());
    if ((code = mdb_env_set_assert(env_, trap::failed_assertion)) != 0
        || (code = mdb_env_set_mapsize(env_, map_size_)) != 0 || (code = mdb_env_set_maxreaders(env_, max_readers)) != 0
        || (code = mdb_env_open(env_, folder, MDB_NOTLS | (mode == open_mode::read ? MDB_RDONLY : 0), data_file_mode))
               != 0) {
        return from_lmdb(code);
    }
    if (const fault problem = files_.protect_mutexes()) {
        return problem;
    }

    // LMDB opens by path: data.mdb, twice to write, and lock.mdb. They must be the files that were checked.
    unsigned data_files = 0;
    unsigned lock_files = 0;
    for (const int fd : std::span{next}.first(mode == open_mode::read ? 2 : 3)) {
        const auto file = identify(fd);
        data_files += file == files_.data_identity() ? 1 : 0;
        lock_files += file == files_.lock_identity() ? 1 : 0;
    }
    if (lock_files != 1 || data_files != (mode == open_mode::read ? 1 : 2) || !files_.are_in_place()) {
        return {fault_kind::replaced};
    }

    const fault problem = check_mutexes();
    return problem ? problem : check_length();
}

/// Locks a mutex in lock.mdb to see whether that works. Runs in a trap.
fault environment::check_mutexes() const noexcept
{
    if (!have_right_kind(files_.lock())) {
        return {fault_kind::lost_mutexes};
    }

    MDB_txn *transaction;
    const int code = begin_reading(transaction);
    if (code == 0) {
        mdb_txn_abort(transaction);
    }
    const fault problem = from_begin(code);
    return problem.kind == fault_kind::lost_mutexes ? problem : fault{};
}

/// That the file is as long as its last page says, but for free pages at its end, which LMDB does not write if a
/// transaction took and gave them back. Runs in a trap.
fault environment::check_length() noexcept
{
    constexpr int max_tries = 3;  // a commit may just be published, or never be
    for (int tries = 0; tries < max_tries; tries++) {
        MDB_envinfo info;
        MDB_stat tree;
        struct stat file;
        mdb_env_info(env_, &info);
        mdb_env_stat(env_, &tree);
        if (fstat(files_.data(), &file) != 0) {
            return from_errno(errno);
        }

        const std::size_t pages = static_cast<std::size_t>(file.st_size) / tree.ms_psize;
        if (info.me_last_pgno < pages) {
            return {};
        }

        MDB_txn *transaction;
        int code = begin_reading(transaction);
        if (code != 0) {
            return from_lmdb(code);
        }

        const bool is_same_commit = mdb_txn_id(transaction) == info.me_last_txnid;
        if (is_same_commit) {
            code = free_.load(transaction);
        }
        mdb_txn_abort(transaction);
        free_.close();

        if (code != 0) {
            return from_lmdb(code);
        }
        if (is_same_commit) {
            for (std::size_t page = pages; page <= info.me_last_pgno; page++) {
                if (!free_.has(page)) {
                    return {fault_kind::truncated};
                }
            }
            return {};
        }
    }
    return {};
}

void environment::close() noexcept
{
    for (environment **link = &readers_; *link != nullptr; link = &(*link)->next_reader_) {
        if (*link == this) {
            *link = next_reader_;
            break;
        }
    }
    close_environment();
    files_.close();
}

void environment::close_environment() noexcept
{
    if (env_ != nullptr) {
        // Closing clears our slots in lock.mdb, which is mapped, too. If that fails there is nothing left to free.
        (void) trap::run([this] {
            free_.close();
            mdb_env_close(env_);
        });
        env_ = nullptr;
        files_.unprotect_mutexes();
    }
}

void environment::abandon() noexcept
{
    env_ = nullptr;
    files_.abandon();
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

fault environment::grow() noexcept
{
    if (const fault problem = check_data_file(files_.data(), map_size_)) {
        return problem;
    }
    free_.forget();  // the map may be elsewhere
    return from_lmdb(mdb_env_set_mapsize(env_, 0));
}

pid_t environment::writing_process() const noexcept
{
    // The C library keeps the number of the thread in the lock of a robust mutex, and the kernel removes it from there
    // when the thread ends.
    pthread_mutex_t found;
    return read_mutex(files_.lock(), writers_mutex_at, found)
               ? static_cast<pid_t>(static_cast<unsigned>(found.__data.__lock) & FUTEX_TID_MASK)
               : 0;
}

std::size_t environment::last_transaction() const noexcept
{
    MDB_envinfo info;
    mdb_env_info(env_, &info);
    return info.me_last_txnid;
}

}  // namespace pat::store
