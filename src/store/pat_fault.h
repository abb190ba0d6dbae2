#pragma once

#include "core/pat_record.h"

#include <array>
#include <cstdint>

/// The faults of a store, and their messages.
namespace pat::store {

enum class fault_kind : std::uint32_t {
    none,
    absent,            ///< there is no store at that path
    denied,            ///< the operating system refused a call
    foreign,           ///< root may not open it: it belongs to another user
    shared,            ///< root may not open it: it belongs to root, but others may write to its files
    exposed,           ///< root may not open it: others can put another folder in its place
    no_lock_file,      ///< lock.mdb or open.lock is missing, or lock.mdb is not writable
    not_regular,       ///< a file is a link or no regular file; `code` says which: 1 data.mdb, 2 lock.mdb, 3 open.lock
    bad_lock_file,     ///< lock.mdb can't be LMDB's
    read_only,         ///< the file system is mounted read-only, where LMDB would silently drop its locks
    busy,              ///< others kept open.lock for longer than we may wait
    stalled,           ///< LMDB waited for a lock in lock.mdb for longer than we may wait
    other_namespace,   ///< a process of another PID namespace has the store open
    no_namespace,      ///< the PID namespace is unknown, as /proc is not mounted
    lost_mutexes,      ///< the mutexes in lock.mdb are destroyed, and others have it open
    bad_library,       ///< this LMDB release has another file format
    not_a_store,       ///< data.mdb is not an LMDB file, or has no meta record
    newer_lmdb,        ///< data.mdb was written by LMDB 1.0 or later
    newer_format,      ///< the meta record was written by a newer version of ours
    truncated,         ///< data.mdb lacks pages that are in use
    damaged,           ///< LMDB ran into impossible bytes, or past the end of the file
    bad_record,        ///< a record could not be decoded; `code` is a codec_error
    wrong_pepper,      ///< the store's digests were made with another pepper, or with none
    replaced,          ///< the file that is open is no longer the file at the path
    same_store_twice,  ///< another path that is open in this process leads to the same files
    readers_full,      ///< every slot of the reader table is taken
    map_full,          ///< the store has reached its map size
    disk_full,         ///< a transaction could not be written
    exists,            ///< there is a store already
    not_empty,         ///< the folder holds files of others
    lmdb,              ///< any other error of LMDB; `code` says which
};

/// Without bytes between its members, which would be those of the stack where nginx sends it to another process.
struct [[nodiscard]] fault {
    fault_kind kind = fault_kind::none;
    int code = 0;  ///< an errno (positive), an LMDB error (negative), a codec_error for `bad_record`; 0 if none

    explicit operator bool() const noexcept { return kind != fault_kind::none; }
    bool operator==(const fault &) const noexcept = default;
};

/// The problem and, if it helps, the remedy, in lower case without a full stop.
[[nodiscard]] const char *message(fault problem) noexcept;

/// The meaning of `code` (mdb_strerror(3) or the codec's message); empty if there is no code.
[[nodiscard]] const char *detail(fault problem) noexcept;

/// message(), and behind a colon detail() if there is one.
class fault_text {
public:
    explicit fault_text(fault problem) noexcept;

    [[nodiscard]] const char *text() const noexcept { return text_.data(); }

private:
    std::array<char, 512> text_;
};

/// The fault behind an LMDB return code other than MDB_NOTFOUND.
fault from_lmdb(int code) noexcept;

/// The same for mdb_txn_begin(3), which locks a mutex in lock.mdb.
fault from_begin(int code) noexcept;

/// The fault of a token record that could not be decoded.
fault from_codec(codec_error error) noexcept;

/// The fault behind an errno.
fault from_errno(int code) noexcept;

}  // namespace pat::store
