#pragma once

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

static_assert(sizeof(std::size_t) == 8, "the header of an LMDB file is read as a 64-bit machine writes it");

}  // namespace pat::store
