#pragma once

#include "store/pat_fault.h"
#include "store/pat_lmdb_header.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

struct MDB_txn;

/// Looking at the pages that a write will touch, before LMDB sees them. LMDB copies a page by the lengths that stand in
/// it: a damaged one has it write past the end of the copy.
namespace pat::store {

/// Where LMDB has mapped the data file of `transaction`, a write transaction that has changed nothing yet; null if it
/// is the first of all. To be called in a trap.
fault find_map(MDB_txn *transaction, unsigned database, const std::byte *&map) noexcept;

/// A data file as LMDB 0.9 writes it on 64-bit machines (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta), looked at
/// through LMDB's own map: to read the pages or to map them again would cost a revocation a fifth of what it takes.
///
/// What is looked at is the newest commit, as it was before the transaction that is under way. That is enough: a page
/// that this has changed is a copy of one that was looked at, and one that it has not changed is where it was. Only
/// removing can have LMDB merge a page with another one, the next to the left or right that is still as it was.
///
/// After a fault nothing may be written.
class page_check {
public:
    page_check() = default;
    page_check(const page_check &) = delete;
    page_check &operator=(const page_check &) = delete;

    /// Begins with the commit before `transaction` of the file behind `fd`, of which `map_size` bytes are mapped at
    /// `map`. Without a map there is nothing to look at.
    void begin(const std::byte *map, std::size_t map_size, int fd, std::uint64_t transaction) noexcept;

    /// Looks at what LMDB touches when it writes a value of `size` bytes under `key`: the pages from the root to the
    /// leaf, those that the old value lies on if it is a long one, and the list of free pages. To be called in a trap.
    fault before_put(std::span<const std::byte> key, std::size_t size) noexcept;

    /// The same for removing `key`, if it is there.
    fault before_remove(std::span<const std::byte> key) noexcept;

private:
    using bytes = std::span<const std::byte>;

    /// Numbers of pages. Few are in it, of many that there may be.
    class page_set {
    public:
        /// Makes it empty, for numbers below `pages`.
        void clear(std::uint64_t pages) noexcept;
        void insert(std::uint64_t number) noexcept;
        [[nodiscard]] bool contains(std::uint64_t number) const noexcept;

    private:
        std::vector<std::uint64_t> bits_;  ///< one for each page
        std::vector<std::uint64_t> used_;  ///< the words of `bits_` that are not 0
    };

    struct page_tree {
        std::uint64_t root;
        unsigned depth;         ///< 0 if it is empty
        bool is_of_free_pages;  ///< then its keys are 64-bit numbers
        page_set *seen;         ///< which of its pages were looked at
    };

    /// No key of a page is below `low`, and all are below `high`; an empty one is no bound.
    struct bounds {
        bytes low;
        bytes high;
    };

    /// A page on the way from the root down, and which of its nodes leads on.
    struct path_step {
        std::uint64_t page;
        unsigned node;
        bounds keys;
    };

    struct page_path {
        path_step steps[max_depth];
    };

    /// Pages of one level, side by side, that all were looked at: the ways to the first and to the last.
    struct stretch {
        bool is_known = false;
        page_path ends[2];

        [[nodiscard]] bool contains(const bounds &keys, unsigned level) const noexcept;
    };

    struct node {
        bytes key;
        std::size_t size;       ///< on the page
        std::uint64_t child;    ///< of a branch
        const std::byte *data;  ///< of a leaf
        std::size_t data_size;
        unsigned flags;
    };

    fault prepare() noexcept;
    fault follow(bytes key, page_path &path) noexcept;
    fault descend(const page_tree &tree, page_path &path, unsigned start, unsigned end, bool to_the_right) noexcept;
    fault look_beside(const page_path &path, unsigned level, bool to_the_right) noexcept;
    fault check_page(const page_tree &tree, const path_step &step, bool is_leaf) noexcept;
    [[nodiscard]] bool is_sound(const page_tree &tree, const std::byte *page, bool is_leaf) const noexcept;
    fault check_long_value(const node &leaf) noexcept;
    fault check_free_pages() noexcept;
    fault check_free_list(const node &leaf) noexcept;
    fault check_reuse() noexcept;
    [[nodiscard]] bool is_in_use(std::uint64_t number) noexcept;

    [[nodiscard]] const std::byte *page_at(std::uint64_t number) const noexcept { return map_ + number * page_size_; }
    [[nodiscard]] static node node_at(const std::byte *page, unsigned number, bool is_leaf) noexcept;
    [[nodiscard]] static unsigned child_for(const std::byte *page, bytes key) noexcept;
    [[nodiscard]] static path_step child_of(const std::byte *page, const path_step &step) noexcept;

    const std::byte *map_ = nullptr;
    std::size_t map_size_ = 0;
    int fd_ = -1;
    std::uint64_t transaction_ = 0;
    bool is_prepared_ = false;
    std::size_t page_size_ = 0;
    std::uint64_t pages_ = 0;       ///< that the file should have, the free ones included
    std::uint64_t file_pages_ = 0;  ///< that it has
    page_tree free_{};
    page_tree main_{};

    page_set sound_;    ///< pages of the main tree that were looked at
    page_set listing_;  ///< those that the list of free pages lies on
    page_set crossed_;  ///< and those on the way to a free page, which LMDB does not touch
    /// The last neighbour that was checked, on each level. Removing many records in a row goes on from there, as
    /// starting over at each page would take quadratic time.
    std::vector<stretch> stretches_;
    std::size_t looked_at_ = 0;
    std::size_t added_ = 0;   ///< bytes that the puts may have added to leaves
    std::size_t splits_ = 0;  ///< leaves that they may have split

    std::vector<std::span<const std::byte>> lists_;  ///< of free pages, in the order in which LMDB takes them
    std::size_t list_ = 0;                           ///< where check_reuse() is
    std::size_t taken_ = 0;
    std::size_t rewritten_ = 0;  ///< pages that the rest of those lists needs
    std::size_t reuse_checked_ = 0;
};

}  // namespace pat::store
