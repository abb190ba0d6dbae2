#include "store/pat_lmdb.h"

#include "core/pat_bytes.h"
#include "store/pat_trap.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace pat::store {

namespace {

/// LMDB's own order: by the bytes, then by the length. Most keys differ in their first eight bytes.
int compare(const MDB_val *first, const MDB_val *second) noexcept
{
    trap::count_step();

    if (first->mv_size >= sizeof(std::uint64_t) && second->mv_size >= sizeof(std::uint64_t)) {
        const auto one = load_be64(static_cast<const std::byte *>(first->mv_data));
        const auto other = load_be64(static_cast<const std::byte *>(second->mv_data));
        if (one != other) {
            return one < other ? -1 : 1;
        }
    }

    const int order = std::memcmp(first->mv_data, second->mv_data, std::min(first->mv_size, second->mv_size));
    if (order != 0) {
        return order;
    }
    return first->mv_size < second->mv_size ? -1 : first->mv_size > second->mv_size ? 1 : 0;
}

}  // namespace

int open_database(MDB_txn *transaction, MDB_dbi &database) noexcept
{
    const int code = mdb_dbi_open(transaction, nullptr, 0, &database);
    return code != 0 ? code : mdb_set_compare(transaction, database, compare);
}

fault read_meta(MDB_txn *transaction, MDB_dbi database, record_buffer &buffer, meta &out) noexcept
{
    MDB_val key = to_value(meta_key());
    MDB_val value;

    const int code = mdb_get(transaction, database, &key, &value);
    if (code == MDB_NOTFOUND) {
        return {fault_kind::not_a_store};
    }
    if (code != 0) {
        return from_lmdb(code);
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
