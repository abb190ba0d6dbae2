#pragma once

#include "core/pat_bytes.h"
#include "store/pat_lmdb_header.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

struct MDB_cursor;
struct MDB_txn;

namespace pat::store {

/// Where LMDB has mapped the data file that `address`, in a leaf page, is part of; null if that page is damaged. LMDB
/// does not tell, but it gives out pointers into the map, and a page begins with its own number (mdb.c: MDB_page). To
/// be called in a trap.
[[nodiscard]] const std::byte *map_around(const void *address, std::size_t page_size) noexcept;

/// What belongs to a commit, and what is left from earlier ones (reader rule 15): a bit for each page of the data file,
/// 1 MiB for the default map size.
class free_pages {
public:
    free_pages() = default;
    free_pages(const free_pages &) = delete;
    free_pages &operator=(const free_pages &) = delete;

    /// Reads the list of free pages as of the commit that `transaction` reads, unless that is what was read last.
    /// Returns an LMDB code; after an error, all pages count as free. To be called in a trap, like close(), which comes
    /// before the environment is closed.
    int load(MDB_txn *transaction) noexcept;
    void close() noexcept;

    /// Has the next load() read the list, whatever was read before.
    void forget() noexcept;

    /// Finds out where the file is mapped, given the address of a value. Returns an LMDB code. To be called in a trap.
    int locate(const void *address) noexcept;

    [[nodiscard]] bool has(std::size_t page) const noexcept
    {
        return page >= pages_ || (bits_[page / 64] >> (page % 64) & 1) != 0;
    }

    /// Whether a value, which LMDB has found under a key of `key_size` bytes, belongs to the commit: it is on a page in
    /// use, and there among the nodes, not in the room between them and their offsets, where earlier ones remain. The
    /// leaf that leads to a long value is not looked at, as the pages of one that was replaced are free. To be called
    /// in a trap.
    [[nodiscard]] bool is_current(std::size_t key_size, std::span<const std::byte> value) const noexcept
    {
        const auto offset = static_cast<std::size_t>(value.data() - map_);
        const std::size_t page_size = std::size_t{1} << page_bits_;
        const std::size_t page = offset >> page_bits_;
        if (has(page)) {
            return false;
        }

        const std::byte *start = map_ + (page << page_bits_);
        if (load_le<std::uint16_t>(start + page_offset::flags) == page_kind::long_value) {
            return true;
        }
        const std::size_t at = offset & (page_size - 1);
        const std::size_t lower = load_le<std::uint16_t>(start + page_offset::lower);
        const std::size_t upper = load_le<std::uint16_t>(start + page_offset::upper);
        return lower <= upper && at >= upper + node_offset::key + key_size && value.size() <= page_size - at;
    }

private:
    /// The module has no C++ library, and so no operator new.
    struct freer {
        void operator()(std::uint64_t *words) const noexcept { std::free(words); }
    };

    static constexpr std::size_t no_transaction = ~std::size_t{0};

    std::size_t transaction_ = no_transaction;  ///< whose commit was read
    MDB_cursor *cursor_ = nullptr;
    const std::byte *map_ = nullptr;
    unsigned page_bits_ = 0;  ///< the size of a page is 2 to the power of it
    std::size_t pages_ = 0;   ///< of the file
    std::size_t words_ = 0;   ///< that `bits_` has
    std::unique_ptr<std::uint64_t[], freer> bits_;
};

}  // namespace pat::store
