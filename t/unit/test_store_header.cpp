#include "pat_temp_store.h"

#include "core/pat_bytes.h"
#include "store/pat_lmdb_header.h"

#include <sys/syscall.h>

/// What check_data_file() says of headers that LMDB writes, and of others at the edges of what it may write.
namespace {

using namespace pat;
using namespace pat::test;
namespace layout = store::lmdb_header;
using store::fault_kind;

constexpr std::uint64_t no_page = ~std::uint64_t{0};
constexpr std::uint64_t limit = store::max_map_size;

/// One of the two pages.
struct header {
    std::uint64_t transaction;
    std::uint32_t page_size = 4096;
    std::uint64_t free_root = no_page;
    std::uint64_t main_root = no_page;
    std::uint64_t map_size = std::uint64_t{1} << 30;
    std::uint64_t last_page = 1;
};

struct {
    int count;
    int at;          ///< before this read …
    void (*then)();  ///< … this is done
} reads;

int file;

void write_header(off_t at, const header &what)
{
    std::array<std::byte, layout::length> bytes{};
    store_le(&bytes[layout::magic], layout::right_magic);
    store_le(&bytes[layout::version], layout::right_version);
    store_le(&bytes[layout::page_size], what.page_size);
    store_le(&bytes[layout::free_root], what.free_root);
    store_le(&bytes[layout::main_root], what.main_root);
    store_le(&bytes[layout::map_size], what.map_size);
    store_le(&bytes[layout::last_page], what.last_page);
    store_le(&bytes[layout::transaction], what.transaction);
    assert_int_equal(pwrite(file, bytes.data(), bytes.size(), at), bytes.size());
}

/// What is said of a file of so many pages.
store::fault fault_of(const header &first, const header &second, unsigned pages = 10, std::size_t wanted = map_size)
{
    file = open((folder / "data.mdb").text, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    write_header(0, first);
    write_header(first.page_size, second);
    assert_int_equal(ftruncate(file, off_t{pages} * first.page_size), 0);
    reads.count = 0;
    const store::fault problem = store::check_data_file(file, wanted);
    close(file);
    return problem;
}

}  // namespace

extern "C" ssize_t pread(int fd, void *to, std::size_t size, off_t at)
{
    if (++reads.count == reads.at) {
        reads.then();
    }
    return syscall(SYS_pread64, fd, to, size, at);
}

namespace {

void reader_rule_8_a_page_has_a_power_of_two_of_bytes_from_512_to_65536(void **)
{
    for (std::uint32_t size = 512; size <= 65536; size *= 2) {
        const header one{.transaction = 2, .page_size = size};
        assert_fault(fault_of(one, {.transaction = 1, .page_size = size}), fault_kind::none);
    }
    for (const std::uint32_t size : {256U, 511U, 513U, 768U, 4095U, 4097U, 65535U, 65537U, 131072U}) {
        assert_fault(fault_of({.transaction = 2, .page_size = size}, {.transaction = 1, .page_size = size}),
                     fault_kind::damaged);
    }
    // That of the newer page counts.
    const header other{.transaction = 1, .page_size = 8192};
    assert_fault(fault_of({.transaction = 0}, other), fault_kind::damaged);
    assert_fault(fault_of({.transaction = 2}, other), fault_kind::none);
}

void reader_rule_8_commits_are_written_to_the_pages_in_turn(void **)
{
    struct {
        std::uint64_t first;
        std::uint64_t second;
        fault_kind wanted;
    } const rows[] = {
        {0, 0, fault_kind::none},    {0, 1, fault_kind::none},    {2, 1, fault_kind::none},
        {2, 3, fault_kind::none},    {4, 3, fault_kind::none},    {1, 0, fault_kind::damaged},
        {1, 1, fault_kind::damaged}, {1, 2, fault_kind::damaged}, {3, 2, fault_kind::damaged},
        {2, 0, fault_kind::damaged}, {0, 2, fault_kind::damaged}, {2, 2, fault_kind::damaged},
        {0, 3, fault_kind::damaged}, {4, 1, fault_kind::damaged}, {2, 5, fault_kind::damaged},
    };
    for (const auto &row : rows) {
        assert_fault(fault_of({.transaction = row.first}, {.transaction = row.second}), row.wanted);
    }
}

void reader_rule_8_a_file_reaches_to_the_roots_of_its_newest_commit(void **)
{
    constexpr unsigned pages = 10;
    for (std::uint64_t header::*const root : {&header::free_root, &header::main_root}) {
        header newest{.transaction = 3};
        newest.*root = pages - 1;
        assert_fault(fault_of({.transaction = 2}, newest, pages), fault_kind::none);
        newest.*root = pages;
        assert_fault(fault_of({.transaction = 2}, newest, pages), fault_kind::truncated);

        header first{.transaction = 4};
        first.*root = pages;
        assert_fault(fault_of(first, {.transaction = 3}, pages), fault_kind::truncated);
        first.transaction = 2;
        assert_fault(fault_of(first, {.transaction = 3}, pages), fault_kind::none);
    }
}

void reader_rule_8_a_file_asks_for_no_more_than_a_store_may_have(void **)
{
    for (const std::uint64_t transaction : {2, 4}) {
        for (const bool is_first : {true, false}) {
            const auto fault_with = [&](std::uint64_t header::*const field, std::uint64_t value, std::size_t wanted) {
                header first{.transaction = transaction};
                header second{.transaction = 3};
                header &changed = is_first ? first : second;
                changed.*field = value;
                return fault_of(first, second, 10, wanted);
            };
            assert_fault(fault_with(&header::map_size, limit, map_size), fault_kind::none);
            assert_fault(fault_with(&header::map_size, limit + 1, map_size), fault_kind::damaged);
            assert_fault(fault_with(&header::map_size, limit + 1, limit + 1), fault_kind::none);
            assert_fault(fault_with(&header::last_page, limit / 4096 - 1, map_size), fault_kind::none);
            assert_fault(fault_with(&header::last_page, limit / 4096, map_size), fault_kind::damaged);
            assert_fault(fault_with(&header::last_page, limit / 4096, 2 * limit), fault_kind::none);
        }
    }
}

void reader_rule_8_a_file_without_both_pages_is_truncated(void **)
{
    const path data = folder / "data.mdb";
    assert_fault(fault_of({.transaction = 2}, {.transaction = 1}), fault_kind::none);
    errno = 0;
    for (const off_t length :
         {off_t{4096} + static_cast<off_t>(layout::length) - 1, off_t{4096}, off_t{4095}, off_t{1}, off_t{0}}) {
        assert_int_equal(truncate(data.text, length), 0);
        const int fd = open(data.text, O_RDONLY | O_CLOEXEC);
        assert_fault(store::check_data_file(fd, map_size), fault_kind::truncated);
        close(fd);
    }
    assert_int_equal(store::check_data_file(-1, map_size).code, EBADF);
}

void reader_rule_8_a_commit_while_the_pages_are_read_is_no_damage(void **)
{
    const auto commit = [] { write_header(0, {.transaction = 4}); };
    for (const int at : {3, 5}) {
        reads = {0, at, commit};
        assert_fault(fault_of({.transaction = 6}, {.transaction = 3}), fault_kind::none);
        assert_int_equal(reads.count, at + 1);
    }
    reads = {0, 7, commit};
    assert_fault(fault_of({.transaction = 6}, {.transaction = 3}), fault_kind::damaged);
    assert_int_equal(reads.count, 6);
    reads = {};
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(reader_rule_8_a_page_has_a_power_of_two_of_bytes_from_512_to_65536),
        store_test(reader_rule_8_commits_are_written_to_the_pages_in_turn),
        store_test(reader_rule_8_a_file_reaches_to_the_roots_of_its_newest_commit),
        store_test(reader_rule_8_a_file_asks_for_no_more_than_a_store_may_have),
        store_test(reader_rule_8_a_file_without_both_pages_is_truncated),
        store_test(reader_rule_8_a_commit_while_the_pages_are_read_is_no_damage),
    };
    return cmocka_run_group_tests_name("store header", tests, nullptr, nullptr);
}
