#include "writer/pat_pages.h"

#include "core/pat_bytes.h"
#include "store/pat_free_pages.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pat::store {

namespace {

/// Of a tree in the header.
namespace tree_offset {
constexpr std::size_t flags = 4;
constexpr std::size_t depth = 6;
constexpr std::size_t root = 40;
}  // namespace tree_offset

constexpr unsigned data_is_long = 1;

constexpr std::uint64_t first_page = 2;  // behind the two pages of the header
constexpr std::size_t max_key_size = 511;
constexpr std::size_t number_size = 8;

constexpr fault damaged{fault_kind::damaged};

template <typename Integer>
Integer load(const std::byte *bytes) noexcept
{
    return load_le<Integer>(bytes);
}

unsigned nodes_of(const std::byte *page) noexcept
{
    return static_cast<unsigned>((load<std::uint16_t>(page + page_offset::lower) - page_offset::nodes) / 2);
}

/// The order of LMDB's keys, where those of the list of free pages are little-endian numbers.
int compare(std::span<const std::byte> first, std::span<const std::byte> second) noexcept
{
    if (first.size() == number_size && second.size() == number_size) {
        const auto word = load<std::uint64_t>(first.data());
        const auto other = load<std::uint64_t>(second.data());
        return word < other ? -1 : word > other ? 1 : 0;
    }
    return compare_keys(first, second);
}

}  // namespace

fault find_map(MDB_txn *transaction, unsigned database, const std::byte *&map) noexcept
{
    map = nullptr;
    MDB_cursor *cursor;
    if (const int code = mdb_cursor_open(transaction, database, &cursor); code != 0) {
        return from_lmdb(code);
    }
    MDB_val key;
    MDB_val value;
    const int code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    mdb_cursor_close(cursor);
    if (code == MDB_NOTFOUND) {
        constexpr std::size_t first = 1;
        return mdb_txn_id(transaction) == first ? fault{} : damaged;
    }
    if (code != 0) {
        return from_lmdb(code);
    }

    MDB_stat tree;
    mdb_stat(transaction, database, &tree);
    map = map_around(key.mv_data, tree.ms_psize);
    return map == nullptr ? damaged : fault{};
}

void page_check::page_set::clear(std::uint64_t pages) noexcept
{
    for (const std::uint64_t word : used_) {
        bits_[word] = 0;
    }
    used_.clear();
    bits_.resize(std::max(bits_.size(), pages / 64 + 1));
}

void page_check::page_set::insert(std::uint64_t number) noexcept
{
    std::uint64_t &word = bits_[number / 64];
    if (word == 0) {
        used_.push_back(number / 64);
    }
    word |= std::uint64_t{1} << (number % 64);
}

bool page_check::page_set::contains(std::uint64_t number) const noexcept
{
    return (bits_[number / 64] >> (number % 64) & 1) != 0;
}

void page_check::begin(const std::byte *map, std::size_t map_size, int fd, std::uint64_t transaction) noexcept
{
    map_ = map;
    map_size_ = map_size;
    fd_ = fd;
    transaction_ = transaction;
    is_prepared_ = false;
}

fault page_check::before_put(bytes key, std::size_t size) noexcept
{
    const fault problem = prepare();
    if (problem || map_ == nullptr) {
        return problem;
    }

    if (main_.depth != 0) {
        page_path path;
        if (const fault damage = follow(key, path)) {
            return damage;
        }

        // What was put before may lie on the same leaf.
        const std::byte *page = page_at(path.steps[main_.depth - 1].page);
        const std::size_t lower = load<std::uint16_t>(page + page_offset::lower);
        const std::size_t upper = load<std::uint16_t>(page + page_offset::upper);
        added_ += sizeof(std::uint16_t) + node_offset::key + key.size() + size + (key.size() + size) % 2;
        splits_ += added_ > upper - lower ? 1 + size / page_size_ : 0;
    }
    return check_reuse();
}

fault page_check::before_remove(bytes key) noexcept
{
    page_path path;
    fault problem = prepare();
    if (problem || map_ == nullptr || main_.depth == 0 || (problem = follow(key, path))) {
        return problem;
    }

    // LMDB merges a page that has become small with the one beside it, and asks for the lowest key below both.
    for (unsigned level = 0; level < main_.depth; level++) {
        page_path lowest = path;
        lowest.steps[level].node = 0;
        if ((problem = descend(main_, lowest, level, main_.depth - 1, true))) {
            return problem;
        }
        for (const bool to_the_right : {false, true}) {
            if (level > 0 && (problem = look_beside(path, level, to_the_right))) {
                return problem;
            }
        }
    }
    return check_reuse();
}

/// Reads the header of the commit, and looks at the list of free pages, once in a transaction.
fault page_check::prepare() noexcept
{
    if (is_prepared_ || map_ == nullptr) {
        return {};
    }

    const std::uint64_t commit = transaction_ - 1;
    page_size_ = load<std::uint32_t>(map_ + lmdb_header::page_size);
    if (page_size_ < lmdb_header::min_page_size || page_size_ > lmdb_header::max_page_size) {
        return damaged;
    }
    const std::byte *meta = page_at(commit % 2);
    if (load<std::uint64_t>(meta + lmdb_header::transaction) != commit) {
        return {fault_kind::replaced};
    }

    struct stat file;
    if (fstat(fd_, &file) != 0) {
        return from_errno(errno);
    }
    file_pages_ = static_cast<std::uint64_t>(file.st_size) / page_size_;

    const auto last_page = load<std::uint64_t>(meta + lmdb_header::last_page);
    if (last_page >= map_size_ / page_size_) {
        return damaged;
    }
    pages_ = last_page + 1;

    for (const bool is_of_free_pages : {true, false}) {
        const std::byte *tree = meta + (is_of_free_pages ? lmdb_header::free_tree : lmdb_header::main_tree);
        const auto root = load<std::uint64_t>(tree + tree_offset::root);
        const unsigned depth = root == no_page ? 0 : load<std::uint16_t>(tree + tree_offset::depth);
        const auto flags = load<std::uint16_t>(tree + tree_offset::flags);
        if ((root != no_page && depth == 0) || depth > max_depth || (!is_of_free_pages && flags != 0)) {
            return damaged;
        }
        (is_of_free_pages ? free_ : main_) = {root, depth, is_of_free_pages, is_of_free_pages ? &listing_ : &sound_};
    }

    sound_.clear(pages_);
    listing_.clear(pages_);
    crossed_.clear(pages_);
    stretches_.resize(std::max<std::size_t>(stretches_.size(), main_.depth));
    for (stretch &known : stretches_) {
        known.is_known = false;
    }
    looked_at_ = 0;
    added_ = 0;
    splits_ = 0;
    lists_.clear();
    list_ = 0;
    taken_ = 0;
    rewritten_ = 0;
    reuse_checked_ = 0;

    const fault problem = check_free_pages();
    is_prepared_ = !problem;
    return problem;
}

page_check::node page_check::node_at(const std::byte *page, unsigned number, bool is_leaf) noexcept
{
    const std::byte *bytes = page + load<std::uint16_t>(page + page_offset::nodes + number * sizeof(std::uint16_t));
    const std::size_t key_size = load<std::uint16_t>(bytes + node_offset::key_size);
    const unsigned flags = load<std::uint16_t>(bytes + node_offset::flags);

    node result{};
    result.key = {bytes + node_offset::key, key_size};
    result.size = node_offset::key + key_size;
    result.flags = flags;
    if (is_leaf) {
        result.data = bytes + node_offset::key + key_size;
        result.data_size = load<std::uint32_t>(bytes);
        result.size += flags == data_is_long ? sizeof(std::uint64_t) : result.data_size;
    } else {
        result.child = child_at(bytes);
    }
    result.size += result.size % 2;
    return result;
}

/// Which child of a branch a key belongs to. The key of the first is not looked at.
unsigned page_check::child_for(const std::byte *page, bytes key) noexcept
{
    unsigned low = 0;
    unsigned high = nodes_of(page) - 1;
    while (low < high) {
        const unsigned middle = (low + high + 1) / 2;
        if (compare(node_at(page, middle, false).key, key) <= 0) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

page_check::path_step page_check::child_of(const std::byte *page, const path_step &step) noexcept
{
    const node here = node_at(page, step.node, false);
    const bool is_last = step.node + 1 == nodes_of(page);
    return {here.child,
            0,
            {step.node == 0 ? step.keys.low : here.key,
             is_last ? step.keys.high : node_at(page, step.node + 1, false).key}};
}

/// Goes from the root to the leaf of a key, and looks at each page.
fault page_check::follow(bytes key, page_path &path) noexcept
{
    path.steps[0] = {main_.root, 0, {}};
    for (unsigned level = 0;; level++) {
        path_step &step = path.steps[level];
        const bool is_leaf = level + 1 == main_.depth;
        if (const fault problem = check_page(main_, step, is_leaf)) {
            return problem;
        }

        const std::byte *page = page_at(step.page);
        if (is_leaf) {
            for (unsigned i = 0; i < nodes_of(page); i++) {
                const node found = node_at(page, i, true);
                if (found.flags == data_is_long && compare(found.key, key) == 0) {
                    return check_long_value(found);
                }
            }
            return {};
        }
        step.node = child_for(page, key);
        path.steps[level + 1] = child_of(page, step);
    }
}

/// Goes on from a page, by the node that was chosen there, and then by the first or last node of each, and looks at the
/// pages.
fault page_check::descend(const page_tree &tree, page_path &path, unsigned start, unsigned end,
                          bool to_the_right) noexcept
{
    for (unsigned i = start; i < end; i++) {
        path_step &next = path.steps[i + 1];
        next = child_of(page_at(path.steps[i].page), path.steps[i]);
        if (const fault problem = check_page(tree, next, i + 2 == tree.depth)) {
            return problem;
        }
        next.node = to_the_right ? 0 : nodes_of(page_at(next.page)) - 1;
    }
    return {};
}

bool page_check::stretch::contains(const bounds &keys, unsigned level) const noexcept
{
    const bytes &low = ends[0].steps[level].keys.low;
    const bytes &high = ends[1].steps[level].keys.high;
    return (low.empty() || (!keys.low.empty() && compare(keys.low, low) >= 0))
           && (high.empty() || (!keys.high.empty() && compare(keys.high, high) <= 0));
}

/// Looks at the next page of a level that has not been looked at, and at the first ones below it.
fault page_check::look_beside(const page_path &path, unsigned level, bool to_the_right) noexcept
{
    stretch &known = stretches_[level];
    if (!known.is_known || !known.contains(path.steps[level].keys, level)) {
        known = {true, {path, path}};
    }

    page_path &edge = known.ends[to_the_right ? 1 : 0];
    for (;;) {
        unsigned above = level;
        bool leads_on = false;
        while (!leads_on && above > 0) {
            above--;
            const unsigned last = nodes_of(page_at(edge.steps[above].page)) - 1;
            leads_on = to_the_right ? edge.steps[above].node < last : edge.steps[above].node > 0;
        }
        if (!leads_on) {
            return {};
        }
        edge.steps[above].node += to_the_right ? 1U : -1U;

        const std::size_t before = looked_at_;
        if (const fault problem = descend(main_, edge, above, level, to_the_right)) {
            return problem;
        }
        if (looked_at_ != before) {
            page_path lowest = edge;
            lowest.steps[level].node = 0;
            return descend(main_, lowest, level, main_.depth - 1, true);
        }
    }
}

/// Looks at a page, if that was not done, and whether it is the one that belongs there.
fault page_check::check_page(const page_tree &tree, const path_step &step, bool is_leaf) noexcept
{
    if (step.page < first_page || step.page >= std::min(pages_, file_pages_)) {
        return damaged;
    }

    const std::byte *page = page_at(step.page);
    if (listing_.contains(step.page)) {
        return damaged;  // in both trees, or twice in that of the free pages, of which each is looked at once
    }
    if (!tree.seen->contains(step.page)) {
        if (load<std::uint64_t>(page + page_offset::number) != step.page || !is_sound(tree, page, is_leaf)) {
            return damaged;
        }
        tree.seen->insert(step.page);
        looked_at_++;
    } else if (load<std::uint16_t>(page + page_offset::flags) != (is_leaf ? page_kind::leaf : page_kind::branch)) {
        return damaged;
    }

    const unsigned nodes = nodes_of(page);
    const unsigned first = is_leaf ? 0 : 1;
    const bool has_keys = nodes > first;
    const bool is_within =
        !has_keys
        || ((step.keys.low.empty() || compare(node_at(page, first, is_leaf).key, step.keys.low) >= 0)
            && (step.keys.high.empty() || compare(node_at(page, nodes - 1, is_leaf).key, step.keys.high) < 0));
    return is_within ? fault{} : damaged;
}

/// Checks that a page is one of LMDB's: the nodes fill it from `upper` to its end without a gap, and are in the order
/// of their keys.
bool page_check::is_sound(const page_tree &tree, const std::byte *page, bool is_leaf) const noexcept
{
    const std::size_t lower = load<std::uint16_t>(page + page_offset::lower);
    const std::size_t upper = load<std::uint16_t>(page + page_offset::upper);
    if (load<std::uint16_t>(page + page_offset::flags) != (is_leaf ? page_kind::leaf : page_kind::branch)
        || lower < page_offset::nodes || lower % 2 != 0 || upper % 2 != 0 || lower > upper || upper > page_size_) {
        return false;
    }

    // LMDB leaves a branch of the list of free pages with a single node at times.
    const unsigned nodes = nodes_of(page);
    if (nodes < (is_leaf || tree.is_of_free_pages ? 1 : 2)) {
        return false;
    }

    // A bit for each even offset at which a node begins. Each must end where another one begins, or the page ends; as
    // their sizes add up to the room there is, none lies in another.
    std::array<std::uint64_t, lmdb_header::max_page_size / 2 / 64 + 1> begins;
    std::fill_n(begins.begin(), page_size_ / 2 / 64 + 1, 0);
    std::size_t total = 0;
    for (unsigned i = 0; i < nodes; i++) {
        const std::size_t offset = load<std::uint16_t>(page + page_offset::nodes + i * sizeof(std::uint16_t));
        if (offset < upper || offset % 2 != 0 || offset + node_offset::key > page_size_) {
            return false;
        }

        const node here = node_at(page, i, is_leaf);
        const bool may_lack_key = !is_leaf && i == 0;
        const bool has_good_key = tree.is_of_free_pages ? here.key.size() == number_size
                                                        : !here.key.empty() && here.key.size() <= max_key_size;
        if ((!has_good_key && !(may_lack_key && here.key.empty())) || (is_leaf && here.flags > data_is_long)
            || here.size > page_size_ - offset) {
            return false;
        }

        std::uint64_t &word = begins[offset / 2 / 64];
        const std::uint64_t bit = std::uint64_t{1} << (offset / 2 % 64);
        if ((word & bit) != 0) {
            return false;
        }
        word |= bit;
        total += here.size;
    }
    if (total != page_size_ - upper) {
        return false;
    }

    for (unsigned i = 0; i < nodes; i++) {
        const std::size_t offset = load<std::uint16_t>(page + page_offset::nodes + i * sizeof(std::uint16_t));
        const node here = node_at(page, i, is_leaf);
        const std::size_t end = offset + here.size;
        if (end != page_size_ && (begins[end / 2 / 64] >> (end / 2 % 64) & 1) == 0) {
            return false;
        }
        if (i > (is_leaf ? 0U : 1U) && compare(node_at(page, i - 1, is_leaf).key, here.key) >= 0) {
            return false;
        }
    }
    return true;
}

/// The pages that a long value lies on. LMDB leaves a value that becomes shorter within a transaction the pages that it
/// had.
fault page_check::check_long_value(const node &leaf) noexcept
{
    const auto first = load<std::uint64_t>(leaf.data);
    const std::uint64_t needed = (page_offset::nodes + leaf.data_size + page_size_ - 1) / page_size_;
    const std::uint64_t end = std::min(pages_, file_pages_);
    if (first < first_page || first >= end) {
        return damaged;
    }

    const std::byte *page = page_at(first);
    const std::uint64_t pages = load<std::uint32_t>(page + page_offset::long_pages);
    if (load<std::uint64_t>(page + page_offset::number) != first
        || load<std::uint16_t>(page + page_offset::flags) != page_kind::long_value || pages < needed
        || pages > end - first || listing_.contains(first)) {
        return damaged;
    }
    for (std::uint64_t i = needed; i < pages; i++) {
        if (is_in_use(first + i)) {
            return damaged;
        }
    }
    return {};
}

/// All of the list of free pages: a commit writes to its begin and its end, and takes from it.
fault page_check::check_free_pages() noexcept
{
    if (free_.depth == 0) {
        return {};
    }

    page_path path;
    path.steps[0] = {free_.root, 0, {}};
    const unsigned last_level = free_.depth - 1;
    if (const fault problem = check_page(free_, path.steps[0], last_level == 0)) {
        return problem;
    }
    if (const fault problem = descend(free_, path, 0, last_level, true)) {
        return problem;
    }

    for (;;) {
        const std::byte *page = page_at(path.steps[last_level].page);
        for (unsigned i = 0; i < nodes_of(page); i++) {
            if (const fault problem = check_free_list(node_at(page, i, true))) {
                return problem;
            }
        }

        unsigned above = last_level;
        do {
            if (above == 0) {
                return {};
            }
            above--;
        } while (path.steps[above].node + 1 == nodes_of(page_at(path.steps[above].page)));
        path.steps[above].node++;
        if (const fault problem = descend(free_, path, above, last_level, true)) {
            return problem;
        }
    }
}

/// The pages that one transaction has freed: a count, and the numbers, the highest first.
fault page_check::check_free_list(const node &leaf) noexcept
{
    if (load<std::uint64_t>(leaf.key.data()) >= transaction_) {
        return damaged;
    }

    const std::byte *list = leaf.data;
    if (leaf.flags == data_is_long) {
        if (const fault problem = check_long_value(leaf)) {
            return problem;
        }
        const auto first = load<std::uint64_t>(leaf.data);
        const auto count = load<std::uint32_t>(page_at(first) + page_offset::long_pages);
        for (std::uint64_t i = 0; i < count; i++) {
            listing_.insert(first + i);
        }
        list = page_at(first) + page_offset::nodes;
    }

    if (leaf.data_size < number_size) {
        return damaged;
    }
    const auto count = load<std::uint64_t>(list);
    if (count > leaf.data_size / number_size - 1) {
        return damaged;
    }

    std::uint64_t before = pages_;
    for (std::uint64_t i = 1; i <= count; i++) {
        const auto number = load<std::uint64_t>(list + i * number_size);
        if (number >= before || number < first_page) {
            return damaged;
        }
        before = number;
    }
    lists_.emplace_back(list + number_size, count * number_size);
    return {};
}

/// Checks that the free pages which LMDB takes next are not in use. It takes those of the oldest transaction first, and
/// of these the lowest: one for each page that it touches, two or more where a page is full, and some for the lists.
fault page_check::check_reuse() noexcept
{
    constexpr std::size_t for_lists = 4;  // LMDB also rewrites the rest of a list: `rewritten_`
    const std::size_t wanted = looked_at_ + 2 * splits_ + (splits_ > 0 ? main_.depth : 0) + for_lists;

    while (reuse_checked_ < wanted + rewritten_ && list_ < lists_.size()) {
        const bytes &list = lists_[list_];
        if (taken_ == list.size() / number_size) {
            list_++;
            taken_ = 0;
            continue;
        }
        if (taken_ == 0) {
            rewritten_ += list.size() / page_size_ + 1;
        }
        taken_++;
        reuse_checked_++;

        const std::size_t before = looked_at_;
        const bool is_lost = is_in_use(load<std::uint64_t>(list.data() + list.size() - taken_ * number_size));
        looked_at_ = before;
        if (is_lost) {
            return damaged;
        }
    }
    return {};
}

/// Whether a page that is said to be free is where the tree has its keys. Pages of long values have none, and can't be
/// told from free ones.
bool page_check::is_in_use(std::uint64_t number) noexcept
{
    if (listing_.contains(number)) {
        return true;
    }
    if (number >= file_pages_ || main_.depth == 0) {
        return false;
    }

    const std::byte *page = page_at(number);
    const bool is_leaf = load<std::uint16_t>(page + page_offset::flags) == page_kind::leaf;
    const std::size_t at_node = load<std::uint16_t>(page + page_offset::nodes + (is_leaf ? 0 : sizeof(std::uint16_t)));
    if (load<std::uint64_t>(page + page_offset::number) != number || at_node + node_offset::key > page_size_) {
        return false;
    }
    const bytes key = node_at(page, is_leaf ? 0 : 1, is_leaf).key;
    if (key.size() > page_size_ - node_offset::key - at_node) {
        return false;
    }

    const page_tree crossed{main_.root, main_.depth, false, &crossed_};
    path_step step{main_.root, 0, {}};
    for (unsigned level = 0; level < main_.depth; level++) {
        if (step.page == number) {
            return true;
        }
        const bool is_last = level + 1 == main_.depth;
        if (is_last || check_page(crossed, step, false)) {
            return false;
        }
        step.node = child_for(page_at(step.page), key);
        step = child_of(page_at(step.page), step);
    }
    return false;
}

}  // namespace pat::store
