#include "store/pat_lmdb.h"

#include "core/pat_bytes.h"
#include "store/pat_free_pages.h"
#include "store/pat_trap.h"

#include <cstring>

namespace pat::store {

namespace {

/// Out of line, so that compare() needs no stack for keys that differ in their first eight bytes, as nearly all do.
[[gnu::noinline]] int compare_all(const MDB_val *first, const MDB_val *second) noexcept
{
    return compare_keys(to_bytes(*first), to_bytes(*second));
}

int compare(const MDB_val *first, const MDB_val *second) noexcept
{
    trap::count_step();
    if (first->mv_size >= sizeof(std::uint64_t) && second->mv_size >= sizeof(std::uint64_t)) {
        const auto word = load_be64(static_cast<const std::byte *>(first->mv_data));
        const auto other = load_be64(static_cast<const std::byte *>(second->mv_data));
        if (word != other) {
            return word < other ? -1 : 1;
        }
    }
    return compare_all(first, second);
}

}  // namespace

int open_database(MDB_txn *transaction, MDB_dbi &database) noexcept
{
    const int code = mdb_dbi_open(transaction, nullptr, 0, &database);
    return code != 0 ? code : mdb_set_compare(transaction, database, compare);
}

fault read_meta(MDB_txn *transaction, MDB_dbi database, record_buffer &buffer, meta_record &out,
                free_pages *free) noexcept
{
    MDB_val key = to_value(meta_key());
    MDB_val value;

    int code = mdb_get(transaction, database, &key, &value);
    if (code == MDB_NOTFOUND) {
        return {fault_kind::not_a_store};
    }
    if (code != 0) {
        return from_lmdb(code);
    }
    if (free != nullptr) {
        if ((code = free->load(transaction)) != 0 || (code = free->locate(value.mv_data)) != 0) {
            return from_lmdb(code);
        }
        if (!free->is_current(key.mv_size, to_bytes(value))) {
            return {fault_kind::damaged};
        }
    }
    if (value.mv_size > buffer.size()) {
        return from_codec(codec_error::too_long);
    }

    std::memcpy(buffer.data(), value.mv_data, value.mv_size);

    const codec_error error = decode_meta(std::span{buffer}.first(value.mv_size), out);
    if (error == codec_error::newer_version) {
        return {fault_kind::newer_format};
    }
    return error == codec_error::none ? fault{} : from_codec(error);
}

}  // namespace pat::store
