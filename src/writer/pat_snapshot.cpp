#include "writer/pat_snapshot.h"

#include "store/pat_lmdb.h"
#include "store/pat_trap.h"

#include <cstring>

namespace pat::store {

namespace {

/// Copies a key or value out of the map.
bool take(const MDB_val &value, record_buffer &buffer, std::span<const std::byte> &out) noexcept
{
    if (value.mv_size > buffer.size()) {
        return false;
    }
    std::memcpy(buffer.data(), value.mv_data, value.mv_size);
    out = std::span{buffer}.first(value.mv_size);
    return true;
}

}  // namespace

fault snapshot::open(const char *folder, std::size_t map_size) noexcept
{
    if (const fault problem = environment_.open(folder, open_mode::read, map_size, command_wait_ms)) {
        return problem;
    }

    fault problem;
    const auto start = [&] {
        int code = environment_.begin_reading(transaction_);
        if (code == 0 && (code = open_database(transaction_, database_)) == 0) {
            code = mdb_cursor_open(transaction_, database_, &cursor_);
        }
        problem =
            code == 0 ? read_meta(transaction_, database_, meta_bytes_, meta_, &environment_.free()) : from_lmdb(code);
    };
    const fault cut_short = environment::bounded(command_wait_ms, start);
    return cut_short ? cut_short : problem;
}

void snapshot::close() noexcept
{
    (void) trap::run([this] {
        mdb_cursor_close(cursor_);
        mdb_txn_abort(transaction_);
    });
    cursor_ = nullptr;
    transaction_ = nullptr;
    environment_.close();
}

fault snapshot::stat(statistics &out) const noexcept
{
    MDB_stat tree;
    MDB_envinfo info;

    int code = mdb_stat(transaction_, database_, &tree);
    if (code == 0) {
        code = mdb_env_info(environment_.get(), &info);
    }
    if (code != 0) {
        return from_lmdb(code);
    }

    out.entries = tree.ms_entries - 1;  // the meta record
    out.depth = tree.ms_depth;
    out.page_size = tree.ms_psize;
    out.used_pages = info.me_last_pgno + 1;
    out.map_size = info.me_mapsize;
    out.commit = mdb_txn_id(transaction_);
    out.readers = info.me_numreaders;
    out.max_readers = info.me_maxreaders;
    return {};
}

fault snapshot::next(std::span<const std::byte> &key, std::span<const std::byte> &value, bool &done) noexcept
{
    fault problem;
    const auto step = [&] {
        MDB_val found_key;
        MDB_val found_value;

        const int code = mdb_cursor_get(cursor_, &found_key, &found_value, MDB_NEXT);
        done = code == MDB_NOTFOUND;
        if (code != 0) {
            problem = done ? fault{} : from_lmdb(code);
        } else if (!order_.accepts(std::span{key_bytes_}.first(key_length_), to_bytes(found_key))
                   || !take(found_key, key_bytes_, key)
                   || !environment_.free().is_current(found_key.mv_size, to_bytes(found_value))) {
            problem = {fault_kind::damaged};  // no key of an LMDB file is that long
        } else if (!take(found_value, value_bytes_, value)) {
            problem = from_codec(codec_error::too_long);
        }
        key_length_ = problem || done ? key_length_ : found_key.mv_size;
    };
    return trap::run(step) ? problem : fault{fault_kind::damaged};
}

fault snapshot::find(std::span<const std::byte> key, std::span<const std::byte> &value, bool &found) noexcept
{
    fault problem;
    const auto look = [&] {
        MDB_val wanted = to_value(key);
        MDB_val found_value;

        const int code = mdb_get(transaction_, database_, &wanted, &found_value);
        found = code == 0;
        if (code != 0) {
            problem = code == MDB_NOTFOUND ? fault{} : from_lmdb(code);
        } else if (!environment_.free().is_current(key.size(), to_bytes(found_value))) {
            problem = {fault_kind::damaged};
        } else if (!take(found_value, value_bytes_, value)) {
            problem = from_codec(codec_error::too_long);
        }
    };
    return trap::run(look) ? problem : fault{fault_kind::damaged};
}

}  // namespace pat::store
