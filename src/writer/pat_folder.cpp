#include "writer/pat_writer.h"

#include "core/pat_bytes.h"
#include "store/pat_lmdb.h"
#include "store/pat_trap.h"

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <lmdb.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/// Making and copying the folder of a store.
namespace pat::store {

namespace {

/// True if the folder is empty but for files that an interrupted creation may have left, of which open.lock is the
/// first.
bool may_become_a_store(const char *folder) noexcept
{
    const int fd = ::open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = fd < 0 ? nullptr : fdopendir(fd);
    if (entries == nullptr) {
        ::close(fd);
        return false;
    }

    bool may = faccessat(fd, data_file, F_OK, AT_SYMLINK_NOFOLLOW) != 0
               || faccessat(fd, open_lock_file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    while (const dirent *entry = readdir(entries)) {
        const std::string_view file{entry->d_name};
        may = may && (file == "." || file == ".." || file == data_file || file == lock_file || file == open_lock_file);
    }

    closedir(entries);
    return may;
}

/// Copies the environment in `source` to the file `fd`. A child does it: LMDB copies with two threads, so that a trap
/// can't stop it at a damaged page, which then ends the child alone.
fault copy_compacted(const char *source, int fd, std::size_t map_size) noexcept
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return from_errno(errno);
    }

    const pid_t child = fork();
    if (child < 0) {
        const int failed = errno;
        ::close(ends[0]);
        ::close(ends[1]);
        return from_errno(failed);
    }

    if (child == 0) {
        environment original;
        fault problem = original.open(source, open_mode::read, map_size, command_wait_ms);

        // A copy is no larger than the original, however often its pages lead to each other. A few pages may be added
        // meanwhile.
        struct stat info;
        if (!problem && fstat(original.files().data(), &info) == 0) {
            const rlim_t limit = 2 * static_cast<rlim_t>(info.st_size) + (rlim_t{64} << 20);
            const struct rlimit size = {limit, limit};
            (void) setrlimit(RLIMIT_FSIZE, &size);
        }
        if (!problem) {
            problem = from_lmdb(mdb_env_copyfd2(original.get(), fd, MDB_CP_COMPACT));
        }
        original.close();
        _exit(write(ends[1], &problem, sizeof problem) == sizeof problem ? 0 : 1);
    }

    ::close(ends[1]);
    fault problem;
    if (read(ends[0], &problem, sizeof problem) != sizeof problem) {
        problem = {fault_kind::damaged};
    }
    ::close(ends[0]);

    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return problem;
}

/// Checks that the keys of a copy are in order, and as many as the copy says: LMDB copies a damaged page without an
/// error, and clears the part of it that it takes for free.
fault check_copy(MDB_env *copy) noexcept
{
    int code = 0;
    bool is_sound = true;
    const bool has_ended = trap::run([&] {
        MDB_txn *transaction;
        MDB_dbi database;
        MDB_cursor *cursor;
        MDB_stat tree;
        if ((code = mdb_txn_begin(copy, nullptr, MDB_RDONLY, &transaction)) != 0) {
            return;
        }
        if ((code = open_database(transaction, database)) == 0 && (code = mdb_stat(transaction, database, &tree)) == 0
            && (code = mdb_cursor_open(transaction, database, &cursor)) == 0) {
            std::size_t entries = 0;
            std::span<const std::byte> last;
            MDB_val key;
            MDB_val value;
            while (is_sound && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
                is_sound = compare_keys(last, to_bytes(key)) < 0;
                last = to_bytes(key);
                entries++;
            }
            mdb_cursor_close(cursor);
            is_sound = is_sound && entries == tree.ms_entries;
        }
        mdb_txn_abort(transaction);
    });
    return !has_ended || !is_sound             ? fault{fault_kind::damaged}
           : code == 0 || code == MDB_NOTFOUND ? fault{}
                                               : from_lmdb(code);
}

/// Fills a folder that is new with a copy of a store, durably.
fault fill_with_copy(const char *source, const char *destination, std::optional<gid_t> group,
                     std::size_t map_size) noexcept
{
    const descriptor folder{::open(destination, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    if (folder.get() < 0) {
        return from_errno(errno);
    }
    const descriptor data{
        openat(folder.get(), data_file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, data_file_mode)};
    if (data.get() < 0) {
        return from_errno(errno);
    }
    if (const fault problem = copy_compacted(source, data.get(), map_size)) {
        return problem;
    }

    environment copy;
    fault problem = copy.open(destination, open_mode::create, map_size, command_wait_ms);
    if (!problem) {
        problem = check_copy(copy.get());
    }
    if (!problem) {
        problem = copy.files().set_access(group);
    }
    if (!problem && (fsync(data.get()) != 0 || fsync(folder.get()) != 0)) {
        problem = from_errno(errno);
    }
    return problem;
}

/// Removes a folder that fill_with_copy() failed to fill.
void remove_files(const char *folder) noexcept
{
    const descriptor fd{::open(folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    for (const char *file : {data_file, lock_file, open_lock_file}) {
        unlinkat(fd.get(), file, 0);
    }
    rmdir(folder);
}

}  // namespace

fault writer::create(const char *folder, std::optional<gid_t> group, const token_hasher &hasher,
                     std::size_t map_size) noexcept
{
    if (mkdir(folder, folder_mode) != 0 && errno != EEXIST) {
        return from_errno(errno);
    }
    if (!may_become_a_store(folder)) {
        return {fault_kind::not_empty};
    }

    writer fresh;
    fault problem = fresh.environment_.open(folder, open_mode::create, map_size, command_wait_ms);
    if (!problem) {
        problem = fresh.environment_.files().set_access(group);
    }
    if (problem) {
        return problem;
    }

    transaction scope;
    if ((problem = fresh.begin(scope))) {
        return problem;
    }
    if (scope.has_meta_) {
        fresh.abort(scope);
        return {fault_kind::exists};
    }

    scope.meta_.scheme = hasher.scheme();
    scope.meta_.key = hasher.key();
    scope.has_meta_ = true;
    return fresh.commit(scope);
}

fault writer::backup(const char *source, const char *destination, std::size_t map_size) noexcept
{
    struct stat info;
    if (lstat(destination, &info) == 0) {
        return {fault_kind::exists, EEXIST};
    }

    if (stat(source, &info) != 0) {
        return from_errno(errno);
    }

    file_path partial;
    if (!partial.join(destination, ".partial")) {
        return from_errno(ENAMETOOLONG);
    }
    if (mkdir(partial.text(), folder_mode) != 0) {
        return from_errno(errno);
    }

    fault problem = fill_with_copy(source, partial.text(), info.st_gid, map_size);
    if (!problem && rename(partial.text(), destination) != 0) {
        problem = from_errno(errno);
    }
    if (problem) {
        remove_files(partial.text());
    }
    return problem;
}

}  // namespace pat::store
