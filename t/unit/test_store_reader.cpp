#include "pat_temp_store.h"

#include "core/pat_bytes.h"

#include <csignal>
#include <ctime>

#include <dirent.h>
#include <lmdb.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>

namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

/// Further offsets in lock.mdb.
constexpr off_t lock_used_at = 56;
constexpr off_t lock_readers_at = 128;
constexpr off_t lock_reader_size = 64;

/// Offsets in data.mdb, as in pat_environment.cpp.
constexpr off_t data_magic_at = 16;
constexpr off_t data_version_at = 20;
constexpr off_t data_page_size_at = 40;

constexpr unsigned page_size = 4096;

unsigned readers_of(const path &store)
{
    unsigned used = 0;
    for (off_t i = 0; i < store::max_readers; i++) {
        const off_t process_at = lock_readers_at + i * lock_reader_size + 8;
        used += static_cast<std::uint32_t>(read_number(store / "lock.mdb", process_at)) != 0 ? 1 : 0;
    }
    return used;
}

/// The store as another process would leave it: closed, with a copy of its files.
void copy_file(const path &from, const path &to)
{
    const int in = open(from.text, O_RDONLY | O_CLOEXEC);
    const int out = open(to.text, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    assert_true(in >= 0 && out >= 0);
    char buffer[65536];
    for (ssize_t got; (got = read(in, buffer, sizeof buffer)) > 0;) {
        assert_int_equal(write(out, buffer, static_cast<std::size_t>(got)), got);
    }
    close(in);
    close(out);
}

void a_commit_is_seen_by_the_next_lookup(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);

    assert_not_found(*reader, 1);
    put(store, 1);
    assert_found(*reader, 1);
    assert_false(look(*reader, 1).revoked);
    put(store, 1, 1);
    assert_true(look(*reader, 1).revoked);

    delete reader;
}

void reader_rule_2_a_reader_has_a_slot_in_the_table(void **)
{
    const path store = make_store();
    assert_int_equal(readers_of(store), 0);
    store::reader *reader = open_reader(store);
    assert_int_equal(readers_of(store), 1);
    delete reader;
    assert_int_equal(readers_of(store), 0);
}

void reader_rule_3_lookups_take_no_further_slot_and_hold_no_pages(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);

    put(store, 1);
    for (int i = 0; i < 20; i++) {
        put(store, 1, i);
        assert_found(*reader, 1);
    }
    const off_t size = size_of(store / "data.mdb");
    for (int i = 0; i < 100; i++) {
        put(store, 1, i);
        assert_found(*reader, 1);
    }

    assert_int_equal(readers_of(store), 1);
    assert_int_equal(size_of(store / "data.mdb"), size);
    delete reader;
}

void reader_rule_4_a_lock_file_of_another_store_is_noticed(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    put(store, 1, 1);
    put(store, 2);

    // The lock file says which commit a reader begins with. This one would have the token valid for ever.
    const std::uint64_t old = read_number(store / "lock.mdb", lock_transaction_at) - 2;
    patch(store / "lock.mdb", lock_transaction_at, &old, sizeof old);

    const answer got = look(*reader, 1);
    assert_good(got.problem);
    assert_true(got.revoked);
    delete reader;
}

void reader_rule_4_a_commit_that_was_not_published_is_served_soon(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    put(store, 1, 1);

    // As if the writer had been killed between writing its commit and publishing it.
    const std::uint64_t before = read_number(store / "lock.mdb", lock_transaction_at) - 1;
    patch(store / "lock.mdb", lock_transaction_at, &before, sizeof before);
    const answer got = look(*reader, 1);
    assert_good(got.problem);
    assert_false(got.revoked);

    for (int i = 0; i < 3; i++) {
        reader->maintain();
    }
    assert_true(look(*reader, 1).revoked);
    delete reader;
}

void reader_rule_5_files_that_were_replaced_are_noticed(void **)
{
    const path store = make_store();
    put(store, 1);
    const path other = make_store("other");
    put(other, 2);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);

    const path aside = folder / "aside";
    assert_int_equal(rename(store.text, aside.text), 0);
    assert_int_equal(rename(other.text, store.text), 0);
    reader->maintain();
    assert_not_found(*reader, 1);
    assert_found(*reader, 2);

    assert_int_equal(rename(store.text, other.text), 0);
    reader->maintain();
    assert_fault(look(*reader, 2).problem, fault_kind::absent);
    assert_int_equal(rename(aside.text, store.text), 0);
    reader->maintain();
    assert_found(*reader, 1);
    delete reader;
}

void reader_rule_5_a_store_that_appears_later_is_opened(void **)
{
    const path store = folder / "store";
    auto *reader = new store::reader;
    assert_fault(reader->open(store.text, map_size, 0), fault_kind::absent);
    assert_fault(look(*reader, 1).problem, fault_kind::absent);

    make_store();
    put(store, 1);
    reader->maintain();
    assert_found(*reader, 1);
    delete reader;
}

void reader_rule_5_the_slot_of_a_dead_reader_is_freed(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);
    in_child([&] {
        auto *leaked = new store::reader;
        return !leaked->open(store.text, map_size, 0);
    });
    assert_int_equal(readers_of(store), 2);
    reader->maintain();
    assert_int_equal(readers_of(store), 1);
    delete reader;
}

void reader_rule_6_it_waits_for_others_that_open_and_not_for_ever(void **)
{
    const path store = make_store();
    const int fd = open((store / "open.lock").text, O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);

    auto *reader = new store::reader;
    timespec start;
    timespec end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    assert_fault(reader->open(store.text, map_size, 50), fault_kind::busy);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const long waited_ms = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
    assert_in_range(waited_ms, 40, 5000);

    close(fd);
    reader->maintain();
    assert_true(reader->is_open());
    delete reader;
}

void reader_rule_7_a_map_that_another_process_made_larger_is_taken_over(void **)
{
    const path store = make_store();
    constexpr std::size_t small = std::size_t{1} << 20;
    auto *reader = new store::reader;
    assert_good(reader->open(store.text, small, 0));

    commit(store, [](store::transaction &change) {
        for (unsigned i = 0; i < 20000; i++) {
            const token_text text = token(i);
            if (const store::fault problem = change.put(plain(text.text), record_of(text))) {
                return problem;
            }
        }
        return store::fault{};
    });
    assert_true(size_of(store / "data.mdb") > static_cast<off_t>(small));
    assert_found(*reader, 19999);
    delete reader;
}

void reader_rule_7_a_full_table_of_dead_readers_is_cleared(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);  // or else the next to open would make the table anew

    const path lock = store / "lock.mdb";
    const auto used = static_cast<std::uint32_t>(store::max_readers);
    patch(lock, lock_used_at, &used, sizeof used);
    const pid_t nobody = 0x3ffffff;
    for (off_t i = 1; i < store::max_readers; i++) {
        patch(lock, lock_readers_at + i * lock_reader_size + 8, &nobody, sizeof nobody);
    }

    in_child([&] {
        store::reader second;
        return !second.open(store.text, map_size, 0);
    });
    delete reader;
}

void reader_rule_8_a_header_that_can_not_be_is_refused_before_lmdb_sees_it(void **)
{
    const path store = make_store();
    put(store, 1);
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);

    const std::uint32_t zero = 0;
    const std::uint32_t odd = 4097;
    const std::uint32_t huge = 1 << 20;
    const std::uint32_t two = 2;
    const struct {
        const char *label;
        off_t at;
        const std::uint32_t *value;
        fault_kind wanted;
    } rows[] = {
        {"magic", data_magic_at, &zero, fault_kind::not_a_store},
        {"version", data_version_at, &two, fault_kind::newer_lmdb},
        {"page size 0", data_page_size_at, &zero, fault_kind::damaged},
        {"page size 4097", data_page_size_at, &odd, fault_kind::damaged},
        {"page size 1 M", data_page_size_at, &huge, fault_kind::damaged},
        {"magic of the second page", page_size + data_magic_at, &zero, fault_kind::not_a_store},
        {"page size of the second page", page_size + data_page_size_at, &zero, fault_kind::damaged},
    };
    for (const auto &row : rows) {
        copy_file(good, data);
        patch(data, row.at, row.value, sizeof *row.value);
        auto *reader = new store::reader;
        const store::fault problem = reader->open(store.text, map_size, 0);
        delete reader;
        if (problem.kind != row.wanted) {
            print_error("%s\n", row.label);
        }
        assert_fault(problem, row.wanted);
    }

    for (const off_t length : {off_t{0}, off_t{1}, off_t{100}, off_t{page_size}, off_t{page_size + 100},
                               off_t{2 * page_size}, size_of(good) - page_size, size_of(good) - 1}) {
        copy_file(good, data);
        assert_int_equal(truncate(data.text, length), 0);
        auto *reader = new store::reader;
        const store::fault problem = reader->open(store.text, map_size, 0);
        delete reader;
        assert_fault(problem, fault_kind::truncated);
    }

    copy_file(good, data);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    delete reader;
}

void reader_rule_9_a_read_only_mount_is_refused(void **)
{
    const path store = make_store();
    bool skipped = false;
    auto *shared =
        static_cast<bool *>(mmap(nullptr, sizeof(bool), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

    in_child([&] {
        if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0
            || mount(store.text, store.text, nullptr, MS_BIND, nullptr) != 0
            || mount(nullptr, store.text, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) != 0) {
            *shared = true;
            return true;
        }
        store::reader reader;
        return reader.open(store.text, map_size, 0).kind == fault_kind::read_only;
    });

    skipped = *shared;
    munmap(shared, sizeof(bool));
    if (skipped) {
        print_message("mounting is not permitted here\n");
        skip();
    }
}

void reader_rule_10_a_reader_makes_no_file(void **)
{
    const path store = make_store();
    for (const char *file : {"lock.mdb", "open.lock"}) {
        const path gone = store / file;
        assert_int_equal(rename(gone.text, (folder / file).text), 0);
        auto *reader = new store::reader;
        const store::fault problem = reader->open(store.text, map_size, 0);
        delete reader;
        assert_fault(problem, fault_kind::no_lock_file);
        assert_int_equal(access(gone.text, F_OK), -1);
        assert_int_equal(rename((folder / file).text, gone.text), 0);
    }
}

void reader_rule_11_a_change_of_the_meta_record_is_seen(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);

    commit(store, [](store::transaction &change) {
        change.info().key[0] = std::byte{1};
        return store::fault{};
    });
    assert_fault(look(*reader, 1).problem, fault_kind::wrong_pepper);
    delete reader;
}

void a_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end(void **)
{
    const path store = make_store();
    for (unsigned i = 0; i < 3; i++) {
        put(store, i);
    }
    const path good = folder / "good";
    copy_file(store / "data.mdb", good);

    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    assert_int_equal(truncate((store / "data.mdb").text, 0), 0);
    assert_fault(look(*reader, 1).problem, fault_kind::damaged);
    assert_true(look(*reader, 1).problem.kind == fault_kind::truncated);

    copy_file(good, store / "data.mdb");
    reader->maintain();
    assert_found(*reader, 1);
    delete reader;
}

void a_lock_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end(void **)
{
    const path store = make_store();
    put(store, 1);

    // In a process of its own, because what can't be closed is not freed either.
    in_child([&] {
        auto *reader = new store::reader;
        const bool was_good = !reader->open(store.text, map_size, 0) && look(*reader, 1).found;
        const bool is_cut = truncate((store / "lock.mdb").text, 0) == 0;
        return was_good && is_cut && look(*reader, 1).problem;
    });
}

void a_signal_that_is_not_of_a_store_still_ends_the_process(void **)
{
    const path store = make_store();
    for (const int number : {SIGBUS, SIGSEGV}) {
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            std::signal(number, SIG_DFL);  // cmocka has it
            store::reader reader;
            if (reader.open(store.text, map_size, 0)) {
                _exit(1);
            }
            raise(number);
            raise(number);  // the first puts back the action that was there before
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
#if !defined(__SANITIZE_ADDRESS__)
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), number);
#else
        assert_int_not_equal(status, 0);
#endif
    }
}

void no_flipped_bit_makes_a_token_another_one_or_undoes_its_revocation(void **)
{
    constexpr unsigned tokens = 600;
    constexpr unsigned flips = 300;

    const path store = make_store();
    commit(store, [](store::transaction &change) {
        for (unsigned i = 0; i < tokens; i++) {
            const token_text text = token(i);
            if (const store::fault problem = change.put(plain(text.text), record_of(text, i % 2))) {
                return problem;
            }
        }
        return store::fault{};
    });
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);
    const auto bits = static_cast<std::uint64_t>(size_of(good)) * 8;

    std::uint64_t state = 42;
    for (unsigned flip = 0; flip < flips; flip++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        const std::uint64_t bit = (state >> 16) % bits;
        const auto at = static_cast<off_t>(bit / 8);
        auto byte = static_cast<unsigned char>(read_number(good, at - at % 8) >> (at % 8 * 8));
        byte = static_cast<unsigned char>(byte ^ 1U << (bit % 8));
        patch(data, at, &byte, 1);

        auto *reader = new store::reader;
        (void) reader->open(store.text, map_size, 0);
        for (unsigned i = 0; i < tokens; i++) {
            const answer got = look(*reader, i);
            if (got.found) {
                assert_true(got.right);
                assert_int_equal(got.revoked, i % 2);
            }
        }
        delete reader;

        byte = static_cast<unsigned char>(byte ^ 1U << (bit % 8));
        patch(data, at, &byte, 1);
    }

    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    delete reader;
}

void no_zeroed_page_ends_the_process(void **)
{
    constexpr unsigned tokens = 600;
    const path store = make_store();
    commit(store, [](store::transaction &change) {
        for (unsigned i = 0; i < tokens; i++) {
            const token_text text = token(i);
            if (const store::fault problem = change.put(plain(text.text), record_of(text))) {
                return problem;
            }
        }
        return store::fault{};
    });
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);
    char zeros[page_size] = {};
    char branch_without_keys[page_size] = {};
    branch_without_keys[10] = 1;  // the flag of a branch page, on which LMDB asserts that there are keys

    for (off_t page = 2; page < size_of(good) / page_size; page++) {
        for (const char *contents :
             {static_cast<const char *>(zeros), static_cast<const char *>(branch_without_keys)}) {
            store::reader *reader = open_reader(store);
            patch(data, page * page_size, contents, page_size);
            for (unsigned i = 0; i < tokens; i++) {
                const answer got = look(*reader, i);
                assert_true(!got.found || got.right);
            }
            delete reader;
            copy_file(good, data);
        }
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(a_commit_is_seen_by_the_next_lookup),
        store_test(reader_rule_2_a_reader_has_a_slot_in_the_table),
        store_test(reader_rule_3_lookups_take_no_further_slot_and_hold_no_pages),
        store_test(reader_rule_4_a_lock_file_of_another_store_is_noticed),
        store_test(reader_rule_4_a_commit_that_was_not_published_is_served_soon),
        store_test(reader_rule_5_files_that_were_replaced_are_noticed),
        store_test(reader_rule_5_a_store_that_appears_later_is_opened),
        store_test(reader_rule_5_the_slot_of_a_dead_reader_is_freed),
        store_test(reader_rule_6_it_waits_for_others_that_open_and_not_for_ever),
        store_test(reader_rule_7_a_map_that_another_process_made_larger_is_taken_over),
        store_test(reader_rule_7_a_full_table_of_dead_readers_is_cleared),
        store_test(reader_rule_8_a_header_that_can_not_be_is_refused_before_lmdb_sees_it),
        store_test(reader_rule_9_a_read_only_mount_is_refused),
        store_test(reader_rule_10_a_reader_makes_no_file),
        store_test(reader_rule_11_a_change_of_the_meta_record_is_seen),
        store_test(a_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end),
        store_test(a_lock_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end),
        store_test(a_signal_that_is_not_of_a_store_still_ends_the_process),
        store_test(no_flipped_bit_makes_a_token_another_one_or_undoes_its_revocation),
        store_test(no_zeroed_page_ends_the_process),
    };
    return cmocka_run_group_tests_name("store reader", tests, nullptr, nullptr);
}
