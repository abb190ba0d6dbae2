#include "pat_temp_store.h"

#include <csignal>

#include <dlfcn.h>
#include <lmdb.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/// The calls that the store and LMDB make, in which a test can end the process, or have them fail. They are defined
/// here, so the linker prefers them to those of the libraries.
namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

enum class accident { none, killed_before, killed_after, torn_and_killed, fails };

struct {
    accident what;
    int at;      ///< at which of the calls that change data.mdb, from 0 on; before the first if negative
    int passed;  ///< how many there were
} calls;

struct {
    int count;
    int until;       ///< at this renewal …
    void (*then)();  ///< … this is done
} renewals;

/// What LMDB says when it opens a database, and when it looks for a key, if not 0.
int database_error;
int search_error;

unsigned ends;  ///< transactions that were ended for good, but for those that are committed

/// How much later it is at each look at the clock.
long clock_step_ms;

ino_t flushed[8];
unsigned flushes;

/// Runs a call that changes data.mdb, or what is to become of it. `part` does the half of it.
template <typename Call, typename Part>
ssize_t run_call(const Call &whole, const Part &part) noexcept
{
    const bool hit = calls.what != accident::none && calls.passed++ == calls.at;
    if (hit && calls.what == accident::fails) {
        errno = ENOSPC;
        return -1;
    }
    if (hit && calls.what == accident::killed_before) {
        (void) kill(getpid(), SIGKILL);
    }
    if (hit && calls.what == accident::torn_and_killed) {
        (void) part();
        (void) kill(getpid(), SIGKILL);
    }
    const ssize_t result = whole();
    if (hit && calls.what == accident::killed_after) {
        (void) kill(getpid(), SIGKILL);
    }
    return result;
}

}  // namespace

extern "C" ssize_t pwrite(int fd, const void *from, std::size_t size, off_t at)
{
    return run_call([&] { return syscall(SYS_pwrite64, fd, from, size, at); },
                    [&] { return syscall(SYS_pwrite64, fd, from, size / 2, at); });
}

extern "C" ssize_t writev(int fd, const iovec *from, int count)
{
    return run_call([&] { return syscall(SYS_writev, fd, from, count); },
                    [&] { return syscall(SYS_writev, fd, from, count / 2); });
}

extern "C" int fdatasync(int fd)
{
    const auto whole = [fd] { return syscall(SYS_fdatasync, fd); };
    return static_cast<int>(run_call(whole, whole));
}

extern "C" int ftruncate(int fd, off_t length) noexcept
{
    const auto whole = [&] { return syscall(SYS_ftruncate, fd, length); };
    return static_cast<int>(run_call(whole, whole));
}

extern "C" int fallocate(int fd, int mode, off_t at, off_t length)
{
    const auto whole = [&] { return syscall(SYS_fallocate, fd, mode, at, length); };
    return static_cast<int>(run_call(whole, whole));
}

extern "C" int fsync(int fd)
{
    struct stat info;
    if (flushes < std::size(flushed) && fstat(fd, &info) == 0) {
        flushed[flushes++] = info.st_ino;
    }
    return static_cast<int>(syscall(SYS_fsync, fd));
}

extern "C" int clock_gettime(clockid_t clock, timespec *out) noexcept
{
    static long passed_ms;
    passed_ms += clock_step_ms;
    const auto result = static_cast<int>(syscall(SYS_clock_gettime, clock, out));
    const long ns = out->tv_nsec + passed_ms % 1000 * 1'000'000;
    out->tv_sec += passed_ms / 1000 + ns / 1'000'000'000;
    out->tv_nsec = ns % 1'000'000'000;
    return result;
}

extern "C" int mdb_dbi_open(MDB_txn *transaction, const char *name, unsigned flags, MDB_dbi *out)
{
    using function = int (*)(MDB_txn *, const char *, unsigned, MDB_dbi *);
    static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "mdb_dbi_open"));
    return database_error != 0 ? database_error : real(transaction, name, flags, out);
}

extern "C" int mdb_get(MDB_txn *transaction, MDB_dbi database, MDB_val *key, MDB_val *value)
{
    using function = int (*)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *);
    static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "mdb_get"));
    return search_error != 0 ? search_error : real(transaction, database, key, value);
}

extern "C" void mdb_txn_abort(MDB_txn *transaction)
{
    static const auto real = reinterpret_cast<void (*)(MDB_txn *)>(dlsym(RTLD_NEXT, "mdb_txn_abort"));
    ends++;
    real(transaction);
}

extern "C" int mdb_txn_renew(MDB_txn *transaction)
{
    using function = int (*)(MDB_txn *);
    static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "mdb_txn_renew"));
    if (++renewals.count == renewals.until) {
        renewals.then();
    }
    return real(transaction);
}

namespace {

constexpr unsigned tokens = 40;

/// A generation of the store: the even tokens have its number in `revoked_at`, the odd ones are there in even
/// generations only. `more` large records are put and taken away again, whose pages at the end LMDB does not write.
store::fault write_generation(store::transaction &change, std::int64_t generation, unsigned more)
{
    static char scope[3000];  // too long for a page with others
    std::memset(scope, 'a', sizeof scope);

    for (unsigned i = 0; i < tokens; i++) {
        const token_text text = token(i);
        const store::fault problem = i % 2 != 0 && generation % 2 != 0
                                         ? change.erase(plain(text.text))
                                         : change.put(plain(text.text), record_of(text, generation));
        if (problem) {
            return problem;
        }
    }
    for (unsigned i = 0; i < 2 * more; i++) {
        const token_text text = token(1000 + i % more);
        token_record one = record_of(text);
        one.scopes = {scope, sizeof scope};
        if (const store::fault problem =
                i < more ? change.put(plain(text.text), one) : change.erase(plain(text.text))) {
            return problem;
        }
    }
    return {};
}

/// Which generation the store holds as a whole; -1 if it is a mixture, or its counts are wrong.
std::int64_t generation_of(store::transaction &change)
{
    std::int64_t generation = -1;
    std::uint64_t there = 0;
    for (unsigned i = 0; i < tokens; i++) {
        const token_text text = token(i);
        token_record one;
        bool found = false;
        if (change.get(plain(text.text), one, found)) {
            return -1;
        }
        there += found ? 1 : 0;
        if (i == 0 && found) {
            generation = one.revoked_at;
        }
        if (found != (i % 2 == 0 || generation % 2 == 0) || (found && one.revoked_at != generation)) {
            return -1;
        }
    }
    const meta_record &info = change.info();
    return info.tokens == there && info.revoked == there ? generation : -1;
}

/// What readers see of it; -1 as above.
std::int64_t generation_of(store::reader &reader)
{
    static record_buffer memory;
    std::int64_t generation = -1;
    for (unsigned i = 0; i < tokens; i++) {
        const token_text text = token(i);
        token_record one;
        const store::lookup_result got = reader.lookup(
            plain, make_token_key(plain(text.text)), [](void *to, std::size_t) noexcept { return to; }, memory.data(),
            one);
        if (i == 0 && got.found) {
            generation = one.revoked_at;
        }
        if (got.problem || got.found != (i % 2 == 0 || generation % 2 == 0)
            || (got.found && one.revoked_at != generation)) {
            return -1;
        }
    }
    return generation;
}

/// Has an accident happen at each of the calls of a commit in turn, until a commit makes fewer. Each leaves the old
/// generation or the new one, to the reader that is open all the time, to one that starts, and to the next writer.
void each_call_of_a_commit(accident what, int first)
{
    const path store = make_store();
    commit(store, [](store::transaction &change) { return write_generation(change, 0, 0); });
    commit(store, [](store::transaction &change) { return write_generation(change, 1, 0); });
    std::int64_t now = 1;
    store::reader *reader = open_reader(store);
    assert_int_equal(generation_of(*reader), now);

    int at = first;
    for (bool happened = true; happened; at++) {
        assert_true(at < 100);
        const auto more = static_cast<unsigned>(20 * (at + 2));  // more than were given back before
        const pid_t child = start_child([&] {
            store::writer writer;
            if (writer.open(store.text, map_size)) {
                return false;
            }
            calls = {what, at, 0};
            const store::fault problem = writer.update([&](store::transaction &change) {
                const store::fault failed = write_generation(change, now + 1, more);
                if (!failed && at < 0) {
                    (void) kill(getpid(), SIGKILL);
                }
                return failed;
            });
            calls.what = accident::none;
            const bool failed = what == accident::fails && calls.passed > at;
            return problem.kind == (failed ? fault_kind::disk_full : fault_kind::none);
        });
        const int status = status_of(child);
        happened = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        assert_true(happened || status == 0);

        const std::int64_t seen = generation_of(*reader);
        assert_in_range(seen, now, now + 1);
        in_child([&] {
            store::reader second;
            const bool opened = !second.open(store.text, map_size, 0);
            const std::int64_t its = opened ? generation_of(second) : -1;
            return its == now || its == now + 1;
        });
        in_child([&] {
            store::writer writer;
            std::int64_t found = -1;
            return !writer.open(store.text, map_size) && !writer.update([&](store::transaction &change) {
                found = generation_of(change);
                return store::fault{};
            }) && (found == seen || found == now + 1);
        });
        const std::int64_t next = generation_of(*reader);
        assert_in_range(next, seen, now + 1);
        happened = happened || next == now;
        now = next;
    }
    assert_true(at > 3);  // pages, a sync and the meta page at least
    delete reader;
}

void writer_rule_3_a_writer_that_is_killed_before_any_call_leaves_the_old_or_the_new(void **)
{
    each_call_of_a_commit(accident::killed_before, 0);
}

void writer_rule_3_a_writer_that_is_killed_after_any_call_leaves_the_old_or_the_new(void **)
{
    each_call_of_a_commit(accident::killed_after, -1);
}

void writer_rule_3_a_write_that_is_torn_leaves_the_old(void **)
{
    each_call_of_a_commit(accident::torn_and_killed, 0);
}

void writer_rule_5_a_call_that_fails_is_told_and_leaves_the_old_or_the_new(void **)
{
    each_call_of_a_commit(accident::fails, 0);
}

void writer_rule_1_a_creation_that_is_killed_at_any_call_is_completed(void **)
{
    for (const accident what : {accident::killed_before, accident::torn_and_killed, accident::killed_after}) {
        bool happened = true;
        for (int at = 0; happened; at++) {
            assert_true(at < 100);
            char name[40];
            std::snprintf(name, sizeof name, "store-%d-%d", static_cast<int>(what), at);
            const path store = folder / name;
            const int status = status_of(start_child([&] {
                calls = {what, at, 0};
                return !store::writer::create(store.text, std::nullopt, plain, map_size);
            }));
            happened = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
            assert_row(name, happened || status == 0);

            // The very last call may have been the one that made it a store.
            const store::fault again = store::writer::create(store.text, std::nullopt, plain, map_size);
            assert_row(name, again.kind == fault_kind::none || again.kind == fault_kind::exists);
            put(store, 1);
            store::reader *reader = open_reader(store);
            assert_found(*reader, 1);
            delete reader;
        }
    }
}

/// For the function below: the test's store, and the commit that its lock file will be made to tell.
path lagging;
std::uint64_t right_commit;

void publish()
{
    patch(lagging / "lock.mdb", lock_transaction_at, &right_commit, sizeof right_commit);
}

void reader_rule_4_a_transaction_that_is_behind_is_renewed_up_to_three_times(void **)
{
    lagging = make_store();
    put(lagging, 1);
    put(lagging, 2);
    store::reader *reader = open_reader(lagging);
    assert_found(*reader, 2);

    // A lookup of which nothing is wrong renews once.
    renewals = {};
    assert_found(*reader, 2);
    assert_int_equal(renewals.count, 1);

    right_commit = read_number(lagging / "lock.mdb", lock_transaction_at);
    const ino_t open_file = reader->data().inode;
    for (const unsigned behind : {1, 2}) {
        for (int until = 2; until <= 3; until++) {
            const std::uint64_t old = right_commit - behind;
            patch(lagging / "lock.mdb", lock_transaction_at, &old, sizeof old);
            renewals = {0, until, publish};
            assert_found(*reader, 2);
            assert_int_equal(renewals.count, until);
            assert_int_equal(reader->data().inode, open_file);
        }
    }

    // And no more than that.
    const std::uint64_t old = right_commit - 1;
    patch(lagging / "lock.mdb", lock_transaction_at, &old, sizeof old);
    renewals = {0, 4, publish};
    assert_not_found(*reader, 2);
    assert_int_equal(renewals.count, 3);
    publish();
    renewals = {};
    assert_found(*reader, 2);
    delete reader;
}

void unpublish()
{
    const std::uint64_t old = right_commit - 2;
    patch(lagging / "lock.mdb", lock_transaction_at, &old, sizeof old);
}

void reader_rule_4_a_lock_file_that_does_not_fit_again_at_once_is_let_go_of(void **)
{
    lagging = make_store();
    put(lagging, 1);
    put(lagging, 1, 1);
    store::reader *reader = open_reader(lagging);
    right_commit = read_number(lagging / "lock.mdb", lock_transaction_at);

    // Three renewals of the lookup and one of opening the store again, which heals the file; then it is wrong again.
    unpublish();
    renewals = {0, 5, unpublish};
    assert_fault(look(*reader, 1).problem, fault_kind::replaced);
    assert_in_range(renewals.count, 5, 7);
    renewals = {};
    assert_false(reader->is_open());
    assert_fault(look(*reader, 1).problem, fault_kind::replaced);
    look_after(*reader, lagging);
    assert_true(look(*reader, 1).revoked);
    delete reader;
}

void a_search_that_fails_is_no_token_that_is_not_there(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    for (const int code : {MDB_PAGE_NOTFOUND, MDB_CORRUPTED, MDB_BAD_TXN, ENOMEM}) {
        search_error = code;
        for (const unsigned number : {1, 2}) {
            const answer got = look(*reader, number);
            assert_false(got.found);
            assert_true(got.problem == store::from_lmdb(code));
        }
        search_error = 0;
        assert_found(*reader, 1);
        assert_not_found(*reader, 2);
    }
    delete reader;
}

void a_transaction_ends_once(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);
    ends = 0;
    reader->close();
    assert_int_equal(ends, 1);
    reader->close();
    delete reader;
    assert_int_equal(ends, 1);
}

void a_store_without_its_database_is_not_opened(void **)
{
    const path store = make_store();
    put(store, 1);
    database_error = ENOMEM;
    auto *reader = new store::reader;
    const store::fault problem = reader->open(store.text, map_size, 0);
    database_error = 0;
    assert_int_equal(problem.code, ENOMEM);
    assert_good(reader->open(store.text, map_size, 0));
    assert_found(*reader, 1);
    delete reader;
}

void reader_rule_4_what_is_asked_while_a_lock_file_does_not_fit_leaves_no_transaction(void **)
{
    lagging = make_store();
    put(lagging, 1);
    put(lagging, 1, 1);
    store::reader *reader = open_reader(lagging);
    right_commit = read_number(lagging / "lock.mdb", lock_transaction_at);
    store::condition is{};
    for (int round = 0; round < 2; round++) {
        unpublish();
        assert_fault(reader->describe(is), fault_kind::replaced);
        publish();
        assert_good(reader->describe(is));
    }
    delete reader;
}

/// Whether a lookup opens the store again that lock.mdb no longer fits.
bool is_opened_again(store::reader &reader)
{
    unpublish();
    const answer got = look(reader, 1);
    assert_true(got.found || got.problem.kind == fault_kind::replaced);
    return got.found;
}

void requests_wait_for_a_store_to_be_opened_again_only_so_long_in_a_second(void **)
{
    lagging = make_store();
    put(lagging, 1);
    put(lagging, 1, 1);
    auto *reader = new store::reader;
    constexpr std::size_t larger = 2 * map_size;  // than in the file
    assert_good(reader->open(lagging.text, larger, 0));
    right_commit = read_number(lagging / "lock.mdb", lock_transaction_at);
    assert_true(is_opened_again(*reader));
    assert_true(is_opened_again(*reader));
    store::condition is{};
    assert_good(reader->describe(is));
    assert_int_equal(is.map_size, larger);

    reader->maintain();
    clock_step_ms = 1000;
    assert_true(is_opened_again(*reader));
    reader->maintain();
    assert_true(is_opened_again(*reader));
    assert_false(is_opened_again(*reader));
    assert_false(reader->is_open());
    assert_good(reader->open(lagging.text, larger, 0));
    assert_true(is_opened_again(*reader));

    // Nor is one that is damaged opened again, or used.
    assert_int_equal(truncate((lagging / "data.mdb").text, 0), 0);
    assert_fault(look(*reader, 1).problem, fault_kind::damaged);
    assert_false(reader->is_open());
    assert_fault(look(*reader, 1).problem, fault_kind::damaged);
    clock_step_ms = 0;
    delete reader;
}

void what_requests_have_waited_for_is_added_up(void **)
{
    lagging = make_store();
    put(lagging, 1);
    put(lagging, 1, 1);
    store::reader *reader = open_reader(lagging);
    right_commit = read_number(lagging / "lock.mdb", lock_transaction_at);

    clock_step_ms = 5;
    unsigned times = 0;
    while (times < 100 && is_opened_again(*reader)) {
        times++;
    }
    clock_step_ms = 0;
    assert_in_range(times, 1, 99);
    delete reader;
}

void reader_rule_4_a_commit_may_be_unpublished_once_after_each_opening(void **)
{
    lagging = make_store();
    put(lagging, 1);
    put(lagging, 1, 1);
    store::reader *reader = open_reader(lagging);
    right_commit = read_number(lagging / "lock.mdb", lock_transaction_at);
    const std::uint64_t old = right_commit - 1;
    for (int round = 0; round < 2; round++) {
        patch(lagging / "lock.mdb", lock_transaction_at, &old, sizeof old);
        reader->maintain();
        assert_true(reader->is_open());
        assert_good(reader->open(lagging.text, map_size, 0));
    }
    patch(lagging / "lock.mdb", lock_transaction_at, &old, sizeof old);
    reader->maintain();
    assert_true(reader->is_open());
    reader->maintain();
    assert_false(reader->is_open());
    delete reader;
}

void writer_rule_8_a_backup_is_durable_before_it_has_its_name(void **)
{
    const path store = make_store();
    put(store, 1);
    const path copy = folder / "copy";
    flushes = 0;
    assert_good(store::writer::backup(store.text, copy.text, map_size));

    for (const char *file : {"data.mdb", "."}) {
        struct stat info;
        assert_int_equal(stat((copy / file).text, &info), 0);
        bool is_flushed = false;
        for (unsigned i = 0; i < flushes; i++) {
            is_flushed = is_flushed || flushed[i] == info.st_ino;
        }
        assert_row(file, is_flushed);
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(writer_rule_1_a_creation_that_is_killed_at_any_call_is_completed),
        store_test(writer_rule_3_a_writer_that_is_killed_before_any_call_leaves_the_old_or_the_new),
        store_test(writer_rule_3_a_writer_that_is_killed_after_any_call_leaves_the_old_or_the_new),
        store_test(writer_rule_3_a_write_that_is_torn_leaves_the_old),
        store_test(writer_rule_5_a_call_that_fails_is_told_and_leaves_the_old_or_the_new),
        store_test(reader_rule_4_a_transaction_that_is_behind_is_renewed_up_to_three_times),
        store_test(reader_rule_4_a_lock_file_that_does_not_fit_again_at_once_is_let_go_of),
        store_test(a_search_that_fails_is_no_token_that_is_not_there),
        store_test(a_transaction_ends_once),
        store_test(a_store_without_its_database_is_not_opened),
        store_test(reader_rule_4_what_is_asked_while_a_lock_file_does_not_fit_leaves_no_transaction),
        store_test(requests_wait_for_a_store_to_be_opened_again_only_so_long_in_a_second),
        store_test(what_requests_have_waited_for_is_added_up),
        store_test(reader_rule_4_a_commit_may_be_unpublished_once_after_each_opening),
        store_test(writer_rule_8_a_backup_is_durable_before_it_has_its_name),
    };
    return cmocka_run_group_tests_name("store calls", tests, nullptr, nullptr);
}
