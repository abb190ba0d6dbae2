#include "store/pat_fault.h"

#include <cerrno>
#include <cstdio>
#include <iterator>

#include <lmdb.h>

namespace pat::store {

const char *message(fault problem) noexcept
{
    switch (problem.kind) {
    case fault_kind::none: return "no fault";
    case fault_kind::absent: return "there is no store (\"patctl init\" makes one)";
    case fault_kind::denied: return "the store can't be read: check owner, group and mode of the folder and its files";
    case fault_kind::foreign:
        return "the store belongs to another user, and root opens only its own: have nginx's workers run as a user of "
               "the "
               "store's group (\"user\" in nginx.conf)";
    case fault_kind::shared:
        return "the store belongs to root, who opens no store that others may write to: give it to a user of its own";
    case fault_kind::exposed:
        return "root opens no store on whose path others can put another: move it to a folder of root's or of its "
               "owner's";
    case fault_kind::no_lock_file:
        return "lock.mdb or open.lock is missing, or lock.mdb not writable: readers must be in the store's group "
               "(\"patctl init --group\")";
    case fault_kind::not_regular:
        return "a file of the store is a link, or no regular file: remove it, or put a backup in place of the folder";
    case fault_kind::bad_lock_file:
        return "lock.mdb is not LMDB's: end all processes that have the store open, and remove it";
    case fault_kind::read_only: return "the store is on a read-only file system, where LMDB can't lock";
    case fault_kind::busy: return "others are opening the store: open.lock is taken";
    case fault_kind::stalled: return "the store did not open in time: a process holds a lock in lock.mdb";
    case fault_kind::other_namespace:
        return "a process of another PID namespace has the store open: share one (Kubernetes: shareProcessNamespace: "
               "true; Compose: one service for both)";
    case fault_kind::no_namespace: return "the PID namespace is unknown: mount /proc where this process runs";
    case fault_kind::lost_mutexes:
        return "another program destroyed the mutexes in lock.mdb: end all others that have the store open";
    case fault_kind::bad_library:
        return "this release of LMDB can't be used: it must be 0.9, as others have another file format";
    case fault_kind::not_a_store: return "data.mdb is not a store of nginx-auth-pat";
    case fault_kind::newer_lmdb: return "data.mdb was written by a newer LMDB";
    case fault_kind::newer_format: return "the store was written by a newer version of nginx-auth-pat";
    case fault_kind::truncated:
        return "data.mdb is truncated: rebuild the store, or put a backup in place of the folder";
    case fault_kind::damaged: return "data.mdb is damaged: rebuild the store, or put a backup in place of the folder";
    case fault_kind::bad_record: return "a record is damaged (\"patctl verify\" lists such records)";
    case fault_kind::wrong_pepper:
        return "the pepper does not match: the store was made with another pepper, or only one of them has a pepper";
    case fault_kind::replaced: return "the files of the store were replaced while it was open";
    case fault_kind::same_store_twice: return "the store is already open under another path: use one path for it";
    case fault_kind::readers_full: return "the reader table is full";
    case fault_kind::map_full: return "the map is full: use a larger map size, everywhere the same";
    case fault_kind::disk_full: return "the transaction could not be written: is the disk full?";
    case fault_kind::exists: return "there is a store already";
    case fault_kind::not_empty: return "the folder holds other files: name a new or an empty one";
    case fault_kind::lmdb: return "LMDB failed";
    }
    return "unknown fault";
}

const char *detail(fault problem) noexcept
{
    if (problem.code == 0) {
        return "";
    }
    if (problem.kind == fault_kind::not_regular) {
        constexpr const char *files[] = {"data.mdb", "lock.mdb", "open.lock"};
        return problem.code > 0 && problem.code <= static_cast<int>(std::size(files)) ? files[problem.code - 1] : "";
    }
    if (problem.kind == fault_kind::bad_record) {
        return message(static_cast<codec_error>(problem.code)).data();
    }
    return mdb_strerror(problem.code);
}

fault_text::fault_text(fault problem) noexcept
{
    const char *cause = detail(problem);
    std::snprintf(text_.data(), text_.size(), "%s%s%s", message(problem), *cause != '\0' ? ": " : "", cause);
}

fault from_lmdb(int code) noexcept
{
    switch (code) {
    case MDB_SUCCESS: return {};
    case MDB_INVALID: return {fault_kind::not_a_store, code};
    case MDB_VERSION_MISMATCH: return {fault_kind::newer_lmdb, code};
    case MDB_PAGE_NOTFOUND:
    case MDB_CORRUPTED:
    case MDB_CURSOR_FULL: return {fault_kind::damaged, code};
    case MDB_READERS_FULL: return {fault_kind::readers_full, code};
    case MDB_BAD_RSLOT: return {fault_kind::replaced, code};
    case MDB_MAP_FULL: return {fault_kind::map_full, code};
    default: return code > 0 ? from_errno(code) : fault{fault_kind::lmdb, code};
    }
}

fault from_begin(int code) noexcept
{
    const bool is_lost = code == EINVAL || code == ENOTRECOVERABLE;
    return is_lost ? fault{fault_kind::lost_mutexes, code} : from_lmdb(code);
}

fault from_codec(codec_error error) noexcept
{
    return {fault_kind::bad_record, static_cast<int>(error)};
}

fault from_errno(int code) noexcept
{
    switch (code) {
    case ENOENT:
    case ENOTDIR: return {fault_kind::absent, code};
    case EACCES:
    case EPERM: return {fault_kind::denied, code};
    case EROFS: return {fault_kind::read_only, code};
    case EAGAIN: return {fault_kind::busy, code};
    case EEXIST: return {fault_kind::exists, code};
    case ENOSPC:
    case EDQUOT:
    case EIO: return {fault_kind::disk_full, code};
    default: return {fault_kind::lmdb, code};
    }
}

}  // namespace pat::store
