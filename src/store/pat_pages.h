#pragma once

#include "store/pat_fault.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

/// Looking at the pages that a write will touch, before LMDB sees them. LMDB copies a page by the lengths that stand in
/// it: a damaged one has it write past the end of the copy.
namespace pat::store {

/// A data file as LMDB 0.9 writes it on 64-bit machines (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta), read page by
/// page: to map it would cost more page faults than all else that a revocation does.
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

    /// Begins with the commit before `transaction` of the file behind `fd`, of which `map_size` bytes are mapped.
    void begin(int fd, std::size_t map_size, std::uint64_t transaction) noexcept;

    /// Looks at what LMDB touches when it writes under `key`: the pages from the root to the leaf, those that the old
    /// value lies on if it is a long one, and the list of free pages.
    fault before_put(std::span<const std::byte> key) noexcept;

    /// The same for removing what is under `key`, if there is anything.
    fault before_remove(std::span<const std::byte> key) noexcept;

private:
    using bytes = std::span<const std::byte>;
    using buffer = std::unique_ptr<std::byte[]>;
    using page_set = std::vector<std::uint64_t>;  ///< a bit for each page

    static constexpr unsigned max_depth = 32;  ///< LMDB's CURSOR_STACK

    struct tree {
        std::uint64_t root;
        unsigned depth;         ///< 0 if it is empty
        bool is_of_free_pages;  ///< then its keys are 64-bit numbers
    };

    /// No key of a page is below `low`, and all are below `high`; an empty one is no bound.
    struct bounds {
        bytes low;
        bytes high;
    };

    /// A page on the way from the root down, and which of its nodes leads on.
    struct step {
        std::uint64_t page;
        unsigned node;
        bounds keys;
    };

    struct way {
        step steps[max_depth];
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
    fault follow(bytes key, way &out) noexcept;
    fault descend(const tree &in, way &to, unsigned from, unsigned level, bool to_the_right) noexcept;
    fault look_beside(way from, unsigned level, bool to_the_right) noexcept;
    fault check_page(const tree &in, const step &at, bool is_leaf) noexcept;
    [[nodiscard]] bool is_sound(const tree &in, const std::byte *page, bool is_leaf) const noexcept;
    fault check_long_value(const node &leaf) noexcept;
    fault check_free_pages() noexcept;
    fault check_free_list(const node &leaf) noexcept;
    fault check_reuse() noexcept;
    [[nodiscard]] bool is_in_use(std::uint64_t number) noexcept;

    [[nodiscard]] const std::byte *page_at(std::uint64_t number) noexcept;
    [[nodiscard]] buffer read_pages(std::uint64_t first, std::uint64_t count) const noexcept;
    [[nodiscard]] static node node_at(const std::byte *page, unsigned number, bool is_leaf) noexcept;
    [[nodiscard]] static unsigned child_for(const std::byte *page, bytes key) noexcept;
    [[nodiscard]] static step child_of(const std::byte *page, const step &at) noexcept;

    int fd_ = -1;
    std::size_t map_size_ = 0;
    std::uint64_t transaction_ = 0;
    bool is_prepared_ = false;
    std::size_t page_size_ = 0;
    std::uint64_t pages_ = 0;       ///< that the file should have, the free ones included
    std::uint64_t file_pages_ = 0;  ///< that it has
    tree free_{};
    tree main_{};

    std::unordered_map<std::uint64_t, buffer> read_;  ///< pages; those of the tree are forgotten where they are many
    std::size_t most_read_ = 0;
    std::vector<buffer> long_lists_;

    page_set sound_;    ///< pages of the main tree that were looked at
    page_set listing_;  ///< those that the list of free pages lies on
    std::size_t looked_at_ = 0;

    std::vector<std::span<const std::byte>> lists_;  ///< of free pages, in the order in which LMDB takes them
    std::size_t list_ = 0;                           ///< where check_reuse() is
    std::size_t taken_ = 0;
    std::size_t reuse_checked_ = 0;
};

}  // namespace pat::store
