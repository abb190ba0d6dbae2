#pragma once

#include "core/pat_record.h"
#include "store/pat_fault.h"

#include <cstddef>
#include <span>

#include <lmdb.h>

namespace pat::store {

class free_pages;

[[nodiscard]] inline MDB_val to_value(std::span<const std::byte> bytes) noexcept
{
    return {bytes.size(), const_cast<std::byte *>(bytes.data())};
}

[[nodiscard]] inline std::span<const std::byte> to_bytes(const MDB_val &value) noexcept
{
    return {static_cast<const std::byte *>(value.mv_data), value.mv_size};
}

/// Opens the database of a store, whose searches end (pat_trap.h) whatever its pages say. Returns LMDB's code.
[[nodiscard]] int open_database(MDB_txn *transaction, MDB_dbi &database) noexcept;

/// Reads the meta record; its texts point into `buffer`. A store without one is `fault_kind::not_a_store`. With `free`,
/// also reads which pages are free, and the meta record must be current.
fault read_meta(MDB_txn *transaction, MDB_dbi database, record_buffer &buffer, meta_record &out,
                free_pages *free = nullptr) noexcept;

}  // namespace pat::store
