#include "pat_last_closer.h"
#include "pat_temp_store.h"

#include <cerrno>
#include <csignal>

#include <dlfcn.h>
#include <lmdb.h>
#include <poll.h>

/// LMDB 0.9.26 to 0.9.31 destroy the mutexes in lock.mdb if they believe to close it as the last (writer rule 6). These
/// tests do it for them, so they fail with any release.
namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

/// Descriptors of lock.mdb are never closed: see descriptor_of().
int lock_of_closing = -1;  ///< through this one, mdb_env_close() tries to destroy the mutexes
bool was_last;             ///< whether it could

bool killed_when_open;    ///< mdb_env_open() does not return
const char *when_einval;  ///< the folder that mdb_txn_begin() makes if a mutex was destroyed

template <typename Function>
Function *original(const char *name) noexcept
{
    return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

}  // namespace

/// They are defined here, so the linker prefers them to those of LMDB.
extern "C" void mdb_env_close(MDB_env *env)
{
    if (lock_of_closing >= 0) {
        was_last = destroy_mutexes_if_last(lock_of_closing);
    }
    original<decltype(mdb_env_close)>("mdb_env_close")(env);
}

extern "C" int mdb_env_open(MDB_env *env, const char *folder, unsigned flags, mdb_mode_t mode)
{
    const int code = original<decltype(mdb_env_open)>("mdb_env_open")(env, folder, flags, mode);
    if (killed_when_open) {
        (void) kill(getpid(), SIGKILL);
    }
    return code;
}

extern "C" int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **out)
{
    const int code = original<decltype(mdb_txn_begin)>("mdb_txn_begin")(env, parent, flags, out);
    if (code == EINVAL && when_einval != nullptr) {
        (void) mkdir(when_einval, 0700);
    }
    return code;
}

namespace {

int open_lock_file(const path &store)
{
    return open((store / "lock.mdb").text, O_RDWR | O_CLOEXEC);
}

/// Whether another process could destroy the mutexes. Does so.
bool is_last_elsewhere(const path &store)
{
    const pid_t child = fork();
    if (child == 0) {
        _exit(destroy_mutexes_if_last(open_lock_file(store)) ? 1 : 0);
    }
    int status = 0;
    return child < 0 || waitpid(child, &status, 0) != child || status != 0;
}

/// What closing any descriptor of a file does: LMDB's own locks on it are gone.
void drop_locks_of_process(const path &store)
{
    close(open_lock_file(store));
}

/// Opens a store as other programs do.
MDB_env *open_as_others_do(const path &store)
{
    MDB_env *env = nullptr;
    const bool good = mdb_env_create(&env) == 0 && mdb_env_open(env, store.text, MDB_RDONLY, 0) == 0;
    return good ? env : nullptr;
}

void writer_rule_6_the_mutexes_survive_the_close_of_each_process(void **)
{
    const path store = make_store();
    put(store, 1);
    for (const store::open_mode mode : {store::open_mode::read, store::open_mode::write}) {
        in_child([&] {
            store::environment environment;
            if (environment.open(store.text, mode, map_size, 0)) {
                return false;
            }
            lock_of_closing = open_lock_file(store);
            was_last = true;
            environment.close();
            return !was_last;
        });
    }
    put(store, 2);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 2);
    delete reader;
}

void writer_rule_6_the_mutexes_survive_while_a_process_has_the_store_open(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    assert_false(is_last_elsewhere(store));
    drop_locks_of_process(store);
    assert_false(is_last_elsewhere(store));

    in_child([&] {
        MDB_env *other = open_as_others_do(store);
        lock_of_closing = open_lock_file(store);
        was_last = true;
        mdb_env_close(other);
        return other != nullptr && !was_last;
    });
    put(store, 2);
    assert_found(*reader, 2);
    delete reader;
    assert_true(is_last_elsewhere(store));
}

void writer_rule_6_an_abandoned_store_keeps_its_mutexes_until_the_process_ends(void **)
{
    const path store = make_store();
    in_child([&] {
        auto *environment = new store::environment;
        if (environment->open(store.text, store::open_mode::write, map_size, 0)) {
            return false;
        }
        environment->abandon();
        environment->close();
        drop_locks_of_process(store);
        return !is_last_elsewhere(store);
    });
    assert_true(is_last_elsewhere(store));
    put(store, 1);
}

void writer_rule_6_a_program_that_is_started_has_no_lock(void **)
{
    const path store = make_store();
    int input[2];
    assert_int_equal(pipe2(input, O_CLOEXEC), 0);

    in_child([&] {
        auto *environment = new store::environment;
        int started[2];
        if (environment->open(store.text, store::open_mode::read, map_size, 0) || pipe2(started, O_CLOEXEC) != 0) {
            return false;
        }
        const pid_t program = fork();
        if (program == 0) {
            (void) dup2(input[0], STDIN_FILENO);
            (void) execlp("cat", "cat", nullptr);
            _exit(1);
        }
        close(started[1]);
        char nothing = 0;
        return program > 0 && read(started[0], &nothing, 1) == 0 && !is_last_elsewhere(store);
    });
    close(input[0]);
    assert_true(is_last_elsewhere(store));
    pollfd end{input[1], POLLOUT, 0};
    assert_int_equal(poll(&end, 1, 0), 1);
    assert_int_equal(end.revents & POLLERR, 0);  // the program reads from it
    close(input[1]);
}

void writer_rule_6_a_process_that_is_killed_before_it_has_its_lock_harms_nobody(void **)
{
    const path store = make_store();
    put(store, 1);
    for (const bool is_first : {true, false}) {
        store::reader *reader = is_first ? nullptr : open_reader(store);
        const int status = status_of(start_child([&] {
            killed_when_open = true;
            store::environment environment;
            return !environment.open(store.text, store::open_mode::write, map_size, 0);
        }));
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        put(store, is_first ? 2 : 3);
        delete reader;
    }
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    assert_found(*reader, 3);
    delete reader;
}

void writer_rule_6_mutexes_that_were_destroyed_are_made_anew_by_the_next_process(void **)
{
    const path store = make_store();
    put(store, 1);
    assert_true(is_last_elsewhere(store));
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    delete reader;
    assert_true(is_last_elsewhere(store));
    put(store, 2);
}

/// The C library would end the process that locks it, for want of a priority.
void a_mutex_of_a_kind_that_none_has_ends_no_process(void **)
{
    constexpr off_t kinds_at[] = {8 + 16, 64 + 16};  // of both mutexes
    constexpr int with_priority = 64;

    const path store = make_store();
    put(store, 1);
    store::reader *first = open_reader(store);
    for (const off_t at : kinds_at) {
        const auto right = static_cast<int>(read_number(store / "lock.mdb", at));
        const int wrong = right | with_priority;
        patch(store / "lock.mdb", at, &wrong, sizeof wrong);
        in_child([&] {
            auto *reader = new store::reader;
            return reader->open(store.text, map_size, 0).kind == fault_kind::lost_mutexes;
        });
        patch(store / "lock.mdb", at, &right, sizeof right);
    }
    in_child([&] {
        auto *reader = new store::reader;
        return !reader->open(store.text, map_size, 0) && look(*reader, 1).right;
    });
    delete first;
}

/// Two other programs: one was waiting to open the store, while another closed it and destroyed the mutexes.
void writer_rule_6_destroyed_mutexes_heal_as_soon_as_others_have_closed_the_store(void **)
{
    const path store = make_store();
    put(store, 1);

    for (const bool writes : {false, true}) {
        const path is_open = folder / (writes ? "is-open-1" : "is-open-0");
        const path has_met = folder / (writes ? "has-met-1" : "has-met-0");
        const path may_close = folder / (writes ? "may-close-1" : "may-close-0");

        const pid_t other = start_child([&] {
            MDB_env *env = open_as_others_do(store);
            const bool good = env != nullptr && destroy_mutexes(open_lock_file(store));
            const bool closes = good && mkdir(is_open.text, 0700) == 0 && appears(may_close);
            mdb_env_close(env);
            return closes;
        });
        assert_true(appears(is_open));

        auto *reader = new store::reader;
        assert_fault(reader->open(store.text, map_size, 0), fault_kind::lost_mutexes);
        assert_fault(look(*reader, 1).problem, fault_kind::lost_mutexes);
        look_after(*reader, store);
        assert_fault(look(*reader, 1).problem, fault_kind::lost_mutexes);

        const pid_t waiting = start_child([&] {
            when_einval = has_met.text;
            if (writes) {
                store::writer writer;
                return !writer.open(store.text, map_size)
                       && !writer.update([](store::transaction &) { return store::fault{}; });
            }
            auto *second = new store::reader;
            return !second->open(store.text, map_size, deadline_s * 1000) && look(*second, 1).right;
        });
        assert_true(appears(has_met));
        assert_int_equal(mkdir(may_close.text, 0700), 0);
        assert_int_equal(status_of(other), 0);
        assert_int_equal(status_of(waiting), 0);

        look_after(*reader, store);
        assert_found(*reader, 1);
        delete reader;
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(writer_rule_6_the_mutexes_survive_the_close_of_each_process),
        store_test(writer_rule_6_the_mutexes_survive_while_a_process_has_the_store_open),
        store_test(writer_rule_6_an_abandoned_store_keeps_its_mutexes_until_the_process_ends),
        store_test(writer_rule_6_a_program_that_is_started_has_no_lock),
        store_test(writer_rule_6_a_process_that_is_killed_before_it_has_its_lock_harms_nobody),
        store_test(writer_rule_6_mutexes_that_were_destroyed_are_made_anew_by_the_next_process),
        store_test(a_mutex_of_a_kind_that_none_has_ends_no_process),
        store_test(writer_rule_6_destroyed_mutexes_heal_as_soon_as_others_have_closed_the_store),
    };
    return cmocka_run_group_tests_name("store mutexes", tests, nullptr, nullptr);
}
