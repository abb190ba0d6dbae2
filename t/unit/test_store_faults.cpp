#include "pat_temp_store.h"

#include "store/pat_trap.h"

#include <csignal>
#include <vector>

#include <lmdb.h>
#include <sys/mman.h>

namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

void a_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end(void **)
{
    const path store = make_store();
    put_many(store, 3);
    const path good = folder / "good";
    copy_file(store / "data.mdb", good);

    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    assert_int_equal(truncate((store / "data.mdb").text, 0), 0);
    assert_fault(look(*reader, 1).problem, fault_kind::damaged);
    assert_true(look(*reader, 1).problem.kind == fault_kind::truncated);

    copy_file(good, store / "data.mdb");
    look_after(*reader, store);
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

void a_failed_assertion_of_lmdb_leaves_the_trap_and_not_the_process(void **)
{
    for (int round = 0; round < 3; round++) {
        volatile bool went_on = false;
        assert_false(store::trap::run([&] {
            store::trap::failed_assertion(nullptr, "a test");
            went_on = true;
        }));
        assert_false(went_on);
        assert_true(store::trap::run([&] { went_on = true; }));
        assert_true(went_on);
    }
}

/// Reads a byte of a mapped file that has been cut short.
void read_past_the_end_of_a_file(const path &file)
{
    patch(file, 0, "x", 1);
    const void *map = mmap(nullptr, page_size, PROT_READ, MAP_SHARED, descriptor_of(file), 0);
    if (map == MAP_FAILED || truncate(file.text, 0) != 0) {
        _exit(1);
    }
    (void) *static_cast<const volatile char *>(map);
}

void a_map_of_others_that_is_cut_short_still_ends_the_process(void **)
{
    const path store = make_store();
    put(store, 1);
    const pid_t child = start_child([&] {
        std::signal(SIGBUS, SIG_DFL);
        auto *reader = new store::reader;
        if (reader->open(store.text, map_size, 0) || !look(*reader, 1).found) {
            return false;
        }
        read_past_the_end_of_a_file(folder / "other");
        return true;
    });
    const int status = status_of(child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
}

void the_action_of_before_gets_what_is_not_ours(void **)
{
    const path store = make_store();
    const pid_t child = start_child([&] {
        constexpr int wanted = 42;
        std::signal(SIGBUS, [](int) { _exit(wanted); });
        for (int opened = 0; opened < 2; opened++) {
            store::reader reader;
            if (reader.open(store.text, map_size, 0)) {
                return false;
            }
        }
        read_past_the_end_of_a_file(folder / "other");
        return true;
    });
    const int status = status_of(child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
}

void a_trap_that_others_took_away_is_set_again_with_the_next_opening(void **)
{
    const path store = make_store();
    put(store, 1);
    in_child([&] {
        auto *reader = new store::reader;
        if (reader->open(store.text, map_size, 0)) {
            return false;
        }
        std::signal(SIGBUS, SIG_DFL);
        return !reader->open(store.text, map_size, 0) && look(*reader, 1).found
               && truncate((store / "data.mdb").text, 0) == 0 && look(*reader, 1).problem.kind == fault_kind::damaged;
    });
}

void a_file_that_is_cut_short_under_a_writer_is_a_fault_and_not_the_end(void **)
{
    const path store = make_store();
    put_many(store, 600);
    const path good = folder / "good";
    copy_file(store / "data.mdb", good);

    in_child([&] {
        store::writer writer;
        const token_text text = token(1);
        const auto change = [&](store::transaction &to) { return to.put(plain(text.text), record_of(text)); };
        return !writer.open(store.text, map_size) && truncate((store / "data.mdb").text, 2 * page_size) == 0
               && writer.update(change).kind == fault_kind::damaged;
    });
    in_child([&] {
        store::writer writer;
        return writer.open(store.text, map_size).kind == fault_kind::truncated;
    });

    copy_file(good, store / "data.mdb");
    put(store, 600);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    assert_found(*reader, 600);
    delete reader;
}

/// Looks for each of the tokens of put_many(): what is found is right, and neither revoked nor valid again by mistake.
void assert_nothing_wrong_is_found(const path &store, unsigned tokens)
{
    auto *reader = new store::reader;
    (void) reader->open(store.text, map_size, 0);
    for (unsigned i = 0; i < tokens; i++) {
        const answer got = look(*reader, i);
        if (got.found) {
            assert_int_equal(got.problem.kind, fault_kind::none);
            assert_true(got.right);
            assert_int_equal(got.revoked, i % 2);
        }
    }
    delete reader;
}

void no_flipped_bit_makes_a_token_another_one_or_undoes_its_revocation(void **)
{
    constexpr unsigned tokens = 2000;
    constexpr unsigned flips = 300;
    constexpr unsigned flips_of_header = 150;

    const path store = make_store();
    put_many(store, tokens);
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);
    const auto bits = static_cast<std::uint64_t>(size_of(good)) * 8;

    std::uint64_t state = 42;
    for (unsigned flip = 0; flip < flips + flips_of_header; flip++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        const std::uint64_t random = state >> 16;

        // Those of the header go to the first 152 bytes, which are all that has a meaning, of one of its two pages.
        constexpr std::uint64_t header_bits = std::uint64_t{152} * 8;
        const std::uint64_t bit =
            flip < flips ? random % bits : random % header_bits + random / header_bits % 2 * page_size * 8;
        const auto at = static_cast<off_t>(bit / 8);

        const auto right = static_cast<unsigned char>(read_number(good, at - at % 8) >> (at % 8 * 8));
        const auto wrong = static_cast<unsigned char>(right ^ 1U << (bit % 8));
        patch(data, at, &wrong, 1);
        assert_nothing_wrong_is_found(store, tokens);
        patch(data, at, &right, 1);
    }

    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    delete reader;
}

constexpr off_t number_at = 144;  // of the commit, in each of the two headers (LMDB, mdb.c: MDB_meta)

off_t newest_header(const path &data)
{
    return read_number(data, number_at) > read_number(data, page_size + number_at) ? 0 : page_size;
}

void assert_damaged(const path &store)
{
    auto *reader = new store::reader;
    assert_fault(reader->open(store.text, map_size, 0), fault_kind::damaged);
    delete reader;
}

/// The other header of the file is that of the commit before, with all that it had. A copy begins with commit 1 again.
void no_flipped_bit_in_the_number_of_a_commit_undoes_a_revocation(void **)
{
    const path original = make_store();
    const path copy = folder / "copy";
    put(original, 1);
    assert_good(store::writer::backup(original.text, copy.text, map_size));

    for (const path &store : {original, copy}) {
        const path data = store / "data.mdb";
        for (const std::int64_t revoked_at : {1, 2}) {  // the newest is once in the one header, once in the other
            put(store, 1, revoked_at);
            for (const off_t at : {number_at, off_t{page_size} + number_at}) {
                const std::uint64_t right = read_number(data, at);
                for (unsigned bit = 0; bit < 64; bit++) {
                    const std::uint64_t wrong = right ^ std::uint64_t{1} << bit;
                    patch(data, at, &wrong, sizeof wrong);
                    assert_damaged(store);
                }
                patch(data, at, &right, sizeof right);
            }
        }

        store::reader *reader = open_reader(store);
        assert_true(look(*reader, 1).revoked);
        delete reader;
    }
}

/// The number that was published last tells whether the newest commit has been lost. LMDB sets it when it opens a store
/// that nobody has open.
void reader_rule_8_a_lock_file_that_does_not_belong_to_a_header_makes_it_no_better(void **)
{
    const path store = make_store();
    const path data = store / "data.mdb";
    const path lock = store / "lock.mdb";
    put(store, 1);
    put(store, 1, 1);

    const off_t at = newest_header(data) + number_at;
    const std::uint64_t newest = read_number(data, at);
    const std::uint64_t wrong = newest - 2;
    patch(data, at, &wrong, sizeof wrong);
    for (const std::uint64_t published : {newest, std::uint64_t{0}, newest - 3, newest + 1, ~std::uint64_t{0}}) {
        patch(lock, lock_transaction_at, &published, sizeof published);
        assert_damaged(store);
    }
    assert_int_equal(truncate(lock.text, 0), 0);
    assert_damaged(store);
}

/// What a fault interrupts while the store is described is ended.
void a_description_that_a_fault_cuts_short_leaves_the_store_usable(void **)
{
    constexpr off_t free_root_at = 80;
    constexpr off_t last_page_at = 136;
    const path store = make_store();
    const path data = store / "data.mdb";
    put(store, 1);
    store::reader *reader = open_reader(store);
    put(store, 2);

    const off_t header = newest_header(data);
    const std::uint64_t root = read_number(data, header + free_root_at);
    const std::uint64_t last = read_number(data, header + last_page_at);
    const auto past_the_end = static_cast<std::uint64_t>(size_of(data) / page_size + 100);
    patch(data, header + free_root_at, &past_the_end, sizeof past_the_end);
    patch(data, header + last_page_at, &past_the_end, sizeof past_the_end);
    store::condition seen{};
    assert_fault(reader->describe(seen), fault_kind::damaged);
    patch(data, header + free_root_at, &root, sizeof root);
    patch(data, header + last_page_at, &last, sizeof last);

    look_after(*reader, store);
    assert_found(*reader, 2);
    delete reader;
}

/// The pages of earlier commits are still in the file, with all that was valid then.
void reader_rule_15_no_wrong_number_of_a_page_undoes_a_revocation(void **)
{
    constexpr unsigned tokens = 400;
    constexpr unsigned revoked = 20;
    constexpr off_t root_at = 128;  // in each of the two headers
    constexpr off_t kind_at = 10;   // in each other page: 1 for a branch …
    constexpr off_t end_at = 12;    // … the end of the offsets of its nodes …
    constexpr off_t offsets_at =
        16;  // … and these. A node begins with 48 bits of a page number (LMDB, mdb.c: MDB_node)
    constexpr std::uint64_t number_mask = (std::uint64_t{1} << 48) - 1;

    const path store = make_store();
    const path data = store / "data.mdb";
    put_many(store, tokens);
    store::reader *earlier = open_reader(store);  // keeps the pages from being used again
    for (unsigned i = 0; i < revoked; i++) {
        put(store, 2 * i, 1);
    }
    delete earlier;
    store::reader *reader = open_reader(store);
    store::condition right{};
    assert_good(reader->describe(right));

    std::vector<off_t> places{root_at, page_size + root_at};
    const off_t pages = size_of(data) / page_size;
    for (off_t page = 2; page < pages; page++) {
        const off_t begin = page * page_size;
        const auto end = static_cast<off_t>(read_number(data, begin + end_at) & 0xffff);
        if ((read_number(data, begin + kind_at) & 0xffff) == 1) {
            for (off_t at = begin + offsets_at; at < begin + end; at += 2) {
                places.push_back(begin + static_cast<off_t>(read_number(data, at) & 0xffff));
            }
        }
    }
    assert_in_range(places.size(), 10, 10000);

    unsigned refused = 0;
    for (const off_t at : places) {
        const std::uint64_t number = read_number(data, at);
        for (off_t page = 0; page < pages; page++) {
            const std::uint64_t wrong = (number & ~number_mask) | static_cast<std::uint64_t>(page);
            patch(data, at, &wrong, sizeof wrong);
            reader->maintain();
            if (!reader->is_open()) {
                (void) reader->open(store.text, map_size, 0);
            }
            store::condition seen{};
            assert_true(reader->describe(seen) || seen.revoked == right.revoked);
            for (unsigned i = 0; i < revoked; i++) {
                const answer got = look(*reader, 2 * i);
                assert_true(!got.found || (got.right && got.revoked));
                refused += got.problem.kind == fault_kind::damaged ? 1 : 0;
            }
        }
        patch(data, at, &number, sizeof number);
    }
    assert_true(refused > 0);

    delete reader;
    reader = open_reader(store);
    assert_true(look(*reader, 0).revoked);
    assert_found(*reader, tokens - 1);
    delete reader;
}

/// Where a node was removed, those below it in the page move up, and remain where they were as well.
void reader_rule_15_no_wrong_offset_in_a_page_undoes_a_revocation(void **)
{
    constexpr unsigned tokens = 12;
    constexpr off_t kind_at = 10;     // in a page: 2 for a leaf …
    constexpr off_t lower_at = 12;    // … the end of the offsets of its nodes …
    constexpr off_t offsets_at = 16;  // … and these (LMDB, mdb.c: MDB_page)

    const path store = make_store();
    const path data = store / "data.mdb";
    const token_text large = token(tokens);
    commit(store, [&](store::transaction &change) {
        token_record record = record_of(large);
        record.name =
            "a name that makes this record larger than all others, so that their remains are not written over, "
            "which takes some more words than these";
        return change.put(plain(large.text), record);
    });
    for (unsigned i = 0; i < tokens; i++) {
        put(store, i);
    }
    commit(store, [&](store::transaction &change) {
        const token_text last = token(tokens - 1);
        const store::fault problem = change.erase(plain(large.text));
        return problem ? problem : change.put(plain(last.text), record_of(last, 1));
    });

    store::reader *reader = open_reader(store);
    unsigned wrong_offsets = 0;
    const auto assert_none_is_good = [&] {
        wrong_offsets++;
        if (!reader->is_open()) {
            (void) reader->open(store.text, map_size, 0);
        }
        const answer got = look(*reader, tokens - 1);
        assert_true(!got.found || got.revoked);
    };
    for (off_t page = off_t{2} * page_size; page < size_of(data); page += page_size) {
        if ((read_number(data, page + kind_at) & 0xffff) != 2) {
            continue;
        }
        const auto lower = static_cast<std::uint16_t>(read_number(data, page + lower_at));
        for (off_t at = page + offsets_at; at < page + lower; at += 2) {
            const auto right = static_cast<std::uint16_t>(read_number(data, at));
            for (std::uint16_t wrong = 0; wrong < page_size; wrong += 2) {
                patch(data, at, &wrong, sizeof wrong);
                assert_none_is_good();
            }
            patch(data, at, &right, sizeof right);
        }
        for (std::uint16_t wrong = 0; wrong < page_size; wrong += 2) {
            patch(data, page + lower_at, &wrong, sizeof wrong);
            assert_none_is_good();
        }
        patch(data, page + lower_at, &lower, sizeof lower);
    }
    assert_in_range(wrong_offsets, 10000, 1000000);
    delete reader;
}

void no_zeroed_page_ends_the_process(void **)
{
    constexpr unsigned tokens = 600;
    const path store = make_store();
    put_many(store, tokens);
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);
    char zeros[page_size] = {};
    char branch_without_keys[page_size] = {};
    branch_without_keys[10] = 1;  // the flag of a branch page, on which LMDB asserts that there are keys

    for (off_t page = 0; page < size_of(good) / page_size; page++) {
        for (const char *contents :
             {static_cast<const char *>(zeros), static_cast<const char *>(branch_without_keys)}) {
            store::reader *reader = open_reader(store);
            patch(data, page * page_size, contents, page_size);
            for (unsigned i = 0; i < tokens; i++) {
                const answer got = look(*reader, i);
                assert_true(!got.found || (!got.problem && got.right && got.revoked == (i % 2 != 0)));
            }
            look_after(*reader, store);

            copy_file(good, data);
            for (int i = 0; i < 3; i++) {
                look_after(*reader, store);
            }
            assert_found(*reader, 1);
            delete reader;
        }
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(a_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end),
        store_test(a_lock_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end),
        store_test(a_signal_that_is_not_of_a_store_still_ends_the_process),
        store_test(a_failed_assertion_of_lmdb_leaves_the_trap_and_not_the_process),
        store_test(a_map_of_others_that_is_cut_short_still_ends_the_process),
        store_test(the_action_of_before_gets_what_is_not_ours),
        store_test(a_trap_that_others_took_away_is_set_again_with_the_next_opening),
        store_test(a_file_that_is_cut_short_under_a_writer_is_a_fault_and_not_the_end),
        store_test(no_flipped_bit_makes_a_token_another_one_or_undoes_its_revocation),
        store_test(no_flipped_bit_in_the_number_of_a_commit_undoes_a_revocation),
        store_test(reader_rule_8_a_lock_file_that_does_not_belong_to_a_header_makes_it_no_better),
        store_test(reader_rule_15_no_wrong_number_of_a_page_undoes_a_revocation),
        store_test(reader_rule_15_no_wrong_offset_in_a_page_undoes_a_revocation),
        store_test(a_description_that_a_fault_cuts_short_leaves_the_store_usable),
        store_test(no_zeroed_page_ends_the_process),
    };
    return cmocka_run_group_tests_name("store faults", tests, nullptr, nullptr);
}
