#pragma once

#include "core/pat_bytes.h"

#include <cstddef>
#include <cstdint>

namespace pat::store {

/// The two meta pages at the start of an LMDB 0.9 file, as 64-bit little-endian machines write them (LMDB, mdb.c:
/// MDB_page, MDB_meta). LMDB files are not portable between word sizes and byte orders, and neither is this.
namespace lmdb_header {
inline constexpr std::size_t page_header_length = 16;
inline constexpr std::size_t magic = page_header_length;
inline constexpr std::size_t version = magic + 4;
inline constexpr std::size_t map_size = version + 4 + 8;
inline constexpr std::size_t page_size = map_size + 8;
inline constexpr std::size_t free_tree = page_size;  ///< whose first field is the page size
inline constexpr std::size_t free_root = free_tree + 40;
inline constexpr std::size_t main_tree = free_tree + 48;
inline constexpr std::size_t main_root = main_tree + 40;
inline constexpr std::size_t last_page = main_root + 8;
inline constexpr std::size_t transaction = last_page + 8;
inline constexpr std::size_t length = transaction + 8;

inline constexpr std::uint32_t right_magic = 0xBEEFC0DE;
inline constexpr std::uint32_t right_version = 1;
inline constexpr std::size_t min_page_size = 512;
inline constexpr std::size_t max_page_size = 65536;
}  // namespace lmdb_header

inline constexpr std::uint64_t no_page = ~std::uint64_t{0};  ///< the root of an empty tree
inline constexpr unsigned max_depth = 32;                    ///< of a tree (LMDB, mdb.c: CURSOR_STACK)

/// Other pages (LMDB, mdb.c: MDB_page, MDB_node).
namespace page_offset {
inline constexpr std::size_t number = 0;
inline constexpr std::size_t flags = 10;
inline constexpr std::size_t lower = 12;       ///< the end of the offsets of nodes
inline constexpr std::size_t upper = 14;       ///< the begin of the nodes, which go to the end of the page
inline constexpr std::size_t long_pages = 12;  ///< of the first page of a long value: how many there are
inline constexpr std::size_t nodes = 16;
}  // namespace page_offset

namespace node_offset {
inline constexpr std::size_t flags = 4;
inline constexpr std::size_t key_size = 6;
inline constexpr std::size_t key = 8;
}  // namespace node_offset

/// What a page is, by its flags.
namespace page_kind {
inline constexpr unsigned branch = 1;
inline constexpr unsigned leaf = 2;
inline constexpr unsigned long_value = 4;
}  // namespace page_kind

/// The page that a node of a branch leads to, a number of 48 bits.
[[nodiscard]] inline std::uint64_t child_at(const std::byte *node) noexcept
{
    return load_le<std::uint64_t>(node) & ((std::uint64_t{1} << 48) - 1);
}

static_assert(sizeof(std::size_t) == 8, "the header of an LMDB file is read as a 64-bit machine writes it");

}  // namespace pat::store
