/// The check of the header of data.mdb, before LMDB sees the file. Input: a page size, how many pages and bytes the
/// file has, and for both meta pages which fields are wrong, and their values.

#include "core/pat_bytes.h"
#include "pat_fuzz.h"
#include "store/pat_environment.h"
#include "store/pat_lmdb_header.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include <sys/mman.h>
#include <unistd.h>

using namespace pat;

namespace {

using store::fault_kind;

constexpr std::size_t map_size = std::size_t{1} << 30;
constexpr std::uint64_t no_root = ~std::uint64_t{0};

struct meta_fields {
    std::uint32_t magic;
    std::uint32_t version;
    std::uint32_t page_size;
    std::uint64_t map_size;
    std::uint64_t free_root;
    std::uint64_t main_root;
    std::uint64_t last_page;
    std::uint64_t transaction;
};

meta_fields draw_fields(fuzz::input &in, std::uint32_t page_size, std::uint64_t transaction)
{
    const std::uint8_t wrong = in.byte();
    const auto draw = [&]<typename Number>(unsigned bit, Number right) {
        return (wrong >> bit & 1) != 0 ? in.number<Number>() : right;
    };
    return {.magic = draw(0, std::uint32_t{0xbeefc0de}),
            .version = draw(1, std::uint32_t{1}),
            .page_size = draw(2, page_size),
            .map_size = draw(3, std::uint64_t{map_size}),
            .free_root = draw(4, no_root),
            .main_root = draw(5, std::uint64_t{2}),
            .last_page = draw(6, std::uint64_t{3}),
            .transaction = draw(7, transaction)};
}

void put(int fd, std::uint64_t at, const meta_fields &meta)
{
    using namespace store;
    std::array<std::byte, lmdb_header::length> page{};
    store_le(&page[lmdb_header::magic], meta.magic);
    store_le(&page[lmdb_header::version], meta.version);
    store_le(&page[lmdb_header::page_size], meta.page_size);
    store_le(&page[lmdb_header::map_size], meta.map_size);
    store_le(&page[lmdb_header::free_root], meta.free_root);
    store_le(&page[lmdb_header::main_root], meta.main_root);
    store_le(&page[lmdb_header::last_page], meta.last_page);
    store_le(&page[lmdb_header::transaction], meta.transaction);
    if (pwrite(fd, page.data(), page.size(), static_cast<off_t>(at)) != static_cast<ssize_t>(page.size())) {
        std::abort();
    }
}

bool is_page_size(std::uint32_t size)
{
    constexpr std::uint32_t sizes[] = {512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};
    return std::ranges::find(sizes, size) != std::end(sizes);
}

/// Whether LMDB may open a file with these meta pages.
bool is_good(const meta_fields &first, const meta_fields &second, std::uint64_t length)
{
    // The pages are written in turn, and neither is older than the one before the newest.
    const auto numbers = std::minmax(first.transaction, second.transaction);
    const bool is_new = numbers.second == 0;
    if (!is_new && (numbers.second - numbers.first != 1 || first.transaction % 2 != 0)) {
        return false;
    }

    const meta_fields &newest = second.transaction >= first.transaction ? second : first;
    const auto may_be_mapped = [&](const meta_fields &meta) {
        constexpr std::uint64_t limit = std::uint64_t{1} << 40;
        return meta.magic == 0xbeefc0de && meta.version == 1 && is_page_size(meta.page_size)
               && is_page_size(first.page_size) && meta.map_size <= limit && meta.last_page < limit / first.page_size;
    };
    // LMDB finds the second page by the size that the first one has, and takes the size that the newest one has.
    if (!may_be_mapped(first) || !may_be_mapped(second) || newest.page_size != first.page_size) {
        return false;
    }
    const auto is_there = [&](std::uint64_t root) { return root == no_root || root < length / first.page_size; };
    return is_there(newest.free_root) && is_there(newest.main_root);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    static const int fd = memfd_create("data.mdb", MFD_CLOEXEC);

    fuzz::input in{data, size};
    const std::uint32_t page_size = 512U << in.byte() % 8;
    const std::uint64_t length = std::uint64_t{page_size} * (in.byte() % 8) + in.up_to(page_size - 1);
    const meta_fields first = draw_fields(in, page_size, 6);
    const meta_fields second = draw_fields(in, first.page_size, 5 + in.byte() % 4);

    if (ftruncate(fd, 0) != 0) {
        std::abort();
    }
    put(fd, 0, first);
    const std::uint64_t second_at = is_page_size(first.page_size) ? first.page_size : page_size;
    put(fd, second_at, second);
    if (ftruncate(fd, static_cast<off_t>(length)) != 0) {
        std::abort();
    }

    const store::fault problem = store::check_data_file(fd, map_size);
    const bool has_both = length >= second_at + store::lmdb_header::length;
    expect(!problem == (has_both && is_good(first, second, length)));
    return 0;
}
