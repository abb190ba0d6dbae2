#pragma once

#include "core/pat_record.h"
#include "store/pat_environment.h"
#include "store/pat_fault.h"
#include "writer/pat_order.h"

#include <cstddef>
#include <cstdint>
#include <span>

struct MDB_cursor;
struct MDB_txn;

/// Reading a store as a whole: patctl only.
namespace pat::store {

struct statistics {
    std::uint64_t entries;     ///< token records and tombstones
    unsigned depth;            ///< of the tree
    std::size_t page_size;     ///< bytes
    std::uint64_t used_pages;  ///< of the file, the free ones included
    std::size_t map_size;      ///< bytes
    std::uint64_t commit;      ///< transaction id
    unsigned readers;          ///< reader slots handed out so far; they are reused
    unsigned max_readers;
};

/// The store as of one transaction, while the object lives. It keeps the writer from reusing pages, so keep it no
/// longer than needed.
class snapshot {
public:
    snapshot() = default;
    snapshot(const snapshot &) = delete;
    snapshot &operator=(const snapshot &) = delete;
    ~snapshot() { close(); }

    fault open(const char *folder, std::size_t map_size) noexcept;
    void close() noexcept;

    [[nodiscard]] const meta_record &info() const noexcept { return meta_; }

    fault stat(statistics &out) const noexcept;

    /// Moves to the next entry in key order, the meta record included. `done` tells that there was none; the spans are
    /// valid until the next call. After `fault_kind::bad_record`, for a value too long to be a record, `key` is valid
    /// and the walk can go on; after any other fault it can't.
    fault next(std::span<const std::byte> &key, std::span<const std::byte> &value, bool &done) noexcept;

    /// Looks for one key; `found` tells whether it is there. Otherwise like next(), whose position it leaves alone.
    fault find(std::span<const std::byte> key, std::span<const std::byte> &value, bool &found) noexcept;

private:
    environment environment_;
    MDB_txn *transaction_ = nullptr;
    MDB_cursor *cursor_ = nullptr;
    unsigned database_ = 0;
    meta_record meta_;
    record_buffer meta_bytes_{};
    record_buffer key_bytes_{};
    record_buffer value_bytes_{};
    std::size_t key_length_ = 0;
    walk_order order_;
};

}  // namespace pat::store
