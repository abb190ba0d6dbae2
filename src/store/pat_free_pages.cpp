#include "store/pat_free_pages.h"

#include "core/pat_bytes.h"
#include "store/pat_environment.h"
#include "store/pat_lmdb.h"
#include "store/pat_lmdb_header.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>

#include <unistd.h>

namespace pat::store {

namespace {

/// LMDB's name of the database that lists free pages (mdb.c: FREE_DBI).
constexpr MDB_dbi free_database = 0;

/// What is beyond is not read: pages of a file of the default map size, and as many commits as there may be while a
/// transaction reads for hours. A crafted list could be endless. The newest come first, as what was revoked last
/// matters most.
constexpr std::size_t max_numbers = default_map_size / 4096;
constexpr unsigned max_lists = 1U << 20;

}  // namespace

const std::byte *map_around(const void *address, std::size_t page_size) noexcept
{
    // A page begins where one of the system does, and is larger only in a file that another system made.
    const std::size_t step = std::min(page_size, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
    const auto *page = static_cast<const std::byte *>(address);
    page -= reinterpret_cast<std::uintptr_t>(page) % step;
    for (std::size_t tried = 0; tried < page_size; tried += step, page -= step) {
        const auto number = load_le<std::uint64_t>(page);
        if (number < max_map_size / page_size) {
            const std::byte *begin = page - number * page_size;
            if (load_le<std::uint32_t>(begin + lmdb_header::magic) == lmdb_header::right_magic) {
                return begin;
            }
        }
    }
    return nullptr;
}

int free_pages::load(MDB_txn *transaction) noexcept
{
    if (mdb_txn_id(transaction) == transaction_) {
        return 0;
    }
    forget();

    int code = cursor_ == nullptr ? mdb_cursor_open(transaction, free_database, &cursor_)
                                  : mdb_cursor_renew(transaction, cursor_);
    if (code != 0) {
        return code;
    }

    MDB_envinfo info;
    MDB_stat tree;
    mdb_env_info(mdb_txn_env(transaction), &info);
    mdb_stat(transaction, free_database, &tree);
    page_bits_ = static_cast<unsigned>(std::countr_zero(std::size_t{tree.ms_psize}));

    // The last page may be that of a later commit, whose other pages are of no interest, or damaged.
    const std::size_t pages = std::min(info.me_last_pgno, (info.me_mapsize >> page_bits_) - 1) + 1;
    const std::size_t words = pages / 64 + 1;
    if (words > words_) {
        words_ = 0;
        bits_.reset(static_cast<std::uint64_t *>(std::malloc(words * sizeof(std::uint64_t))));
        if (bits_ == nullptr) {
            return ENOMEM;
        }
        words_ = words;
    }
    std::fill_n(bits_.get(), words, 0);

    std::size_t left = max_numbers;
    MDB_val key;
    MDB_val value;
    for (unsigned lists = 0; lists < max_lists; lists++) {
        if ((code = mdb_cursor_get(cursor_, &key, &value, lists == 0 ? MDB_LAST : MDB_PREV)) != 0) {
            break;
        }
        // A count and that many page numbers (LMDB, mdb_stat.c). On a damaged page it may be at any address, and of any
        // length.
        const auto list = to_bytes(value);
        const auto number = [&](std::size_t i) { return load_le<std::size_t>(&list[i * sizeof(std::size_t)]); };
        const std::size_t numbers = list.size() / sizeof(std::size_t);
        const std::size_t count = numbers == 0 ? 0 : std::min({numbers - 1, number(0), left});
        for (std::size_t i = 1; i <= count; i++) {
            if (const std::size_t page = number(i); page < pages) {
                bits_[page / 64] |= std::uint64_t{1} << (page % 64);
            }
        }
        left -= count;
    }
    if (code != 0 && code != MDB_NOTFOUND) {
        return code;
    }
    pages_ = pages;
    transaction_ = mdb_txn_id(transaction);
    return 0;
}

void free_pages::forget() noexcept
{
    transaction_ = no_transaction;
    pages_ = 0;
}

void free_pages::close() noexcept
{
    if (cursor_ != nullptr) {
        mdb_cursor_close(cursor_);
        cursor_ = nullptr;
    }
}

int free_pages::locate(const void *address) noexcept
{
    map_ = map_around(address, std::size_t{1} << page_bits_);
    return map_ == nullptr ? MDB_CORRUPTED : 0;
}

}  // namespace pat::store
