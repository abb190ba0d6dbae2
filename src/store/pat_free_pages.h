#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

struct MDB_cursor;
struct MDB_txn;

namespace pat::store {

/// Where LMDB has mapped the data file that `address`, in a leaf page, is part of; null if that page is damaged. LMDB
/// does not tell, but it gives out pointers into the map, and a page begins with its own number (mdb.c: MDB_page). To
/// be called in a trap.
[[nodiscard]] const std::byte *map_around(const void *address, std::size_t page_size) noexcept;

/// The pages of the data file that a commit does not use (reader rule 15): a bit for each page, 1 MiB for the default
/// map size.
class free_pages {
public:
    free_pages() = default;
    free_pages(const free_pages &) = delete;
    free_pages &operator=(const free_pages &) = delete;

    /// Reads the list of free pages as of the commit that `transaction` reads. Returns an LMDB code; after an error,
    /// all pages count as free. To be called in a trap, like close(), which comes before the environment is closed.
    int load(MDB_txn *transaction) noexcept;
    void close() noexcept;

    /// Finds out where the file is mapped, given the address of a value. Returns an LMDB code. To be called in a trap.
    int locate(const void *address) noexcept;

    [[nodiscard]] bool has(std::size_t page) const noexcept
    {
        return page >= pages_ || (bits_[page / 64] >> (page % 64) & 1) != 0;
    }

    /// Whether a value is on a free page.
    [[nodiscard]] bool hold(const void *address) const noexcept
    {
        return has(static_cast<std::size_t>(static_cast<const std::byte *>(address) - map_) >> page_bits_);
    }

private:
    /// The module has no C++ library, and so no operator new.
    struct freer {
        void operator()(std::uint64_t *words) const noexcept { std::free(words); }
    };

    MDB_cursor *cursor_ = nullptr;
    const std::byte *map_ = nullptr;
    unsigned page_bits_ = 0;  ///< the size of a page is 2 to the power of it
    std::size_t pages_ = 0;   ///< of the file
    std::size_t words_ = 0;   ///< that `bits_` has
    std::unique_ptr<std::uint64_t[], freer> bits_;
};

}  // namespace pat::store
