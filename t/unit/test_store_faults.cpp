#include "pat_temp_store.h"

#include "store/pat_trap.h"

#include <csignal>

#include <lmdb.h>
#include <sys/mman.h>

namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

constexpr unsigned page_size = 4096;

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
        store_test(a_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end),
        store_test(a_lock_file_that_is_cut_short_under_a_reader_is_a_fault_and_not_the_end),
        store_test(a_signal_that_is_not_of_a_store_still_ends_the_process),
        store_test(no_flipped_bit_makes_a_token_another_one_or_undoes_its_revocation),
        store_test(no_zeroed_page_ends_the_process),
    };
    return cmocka_run_group_tests_name("store faults", tests, nullptr, nullptr);
}
