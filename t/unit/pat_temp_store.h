#pragma once

#include "pat_cmocka.h"

#include "core/pat_digest.h"
#include "core/pat_record.h"
#include "store/pat_environment.h"
#include "store/pat_reader.h"
#include "writer/pat_writer.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <ftw.h>
#include <lmdb.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/// Stores in a temporary folder. Everything here is trivial to destroy, because cmocka leaves a test with longjmp.
namespace pat::test {

/// Small, so that a store that grows without bound is noticed.
inline constexpr std::size_t map_size = std::size_t{64} << 20;

inline const token_hasher plain;

struct path {
    char text[512];

    [[nodiscard]] path operator/(const char *more) const noexcept
    {
        path result;
        if (std::snprintf(result.text, sizeof result.text, "%s/%s", text, more)
            >= static_cast<int>(sizeof result.text)) {
            std::abort();
        }
        return result;
    }
};

/// The folder of the test that is running: the setup makes it, the teardown removes it.
inline path folder;

inline int make_folder(void **)
{
    std::snprintf(folder.text, sizeof folder.text, "%s/auth-pat-unit-XXXXXX",
                  std::getenv("TMPDIR") != nullptr ? std::getenv("TMPDIR") : "/tmp");
    return mkdtemp(folder.text) == nullptr;
}

inline int remove_folder(void **)
{
    constexpr int open_folders = 16;
    (void) umount2((folder / "disk").text, MNT_DETACH);  // of a test that failed
    return nftw(
        folder.text, [](const char *entry, const struct stat *, int, FTW *) { return remove(entry); }, open_folders,
        FTW_DEPTH | FTW_PHYS);
}

/// A test with a folder of its own.
#define store_test(function) cmocka_unit_test_setup_teardown(function, make_folder, remove_folder)

inline void assert_good(store::fault problem)
{
    if (problem) {
        print_error("%s (%s)\n", store::message(problem), store::detail(problem));
        fail();
    }
}

inline void assert_fault(store::fault problem, store::fault_kind wanted)
{
    if (problem.kind != wanted) {
        print_error("have: %s (%s)\nwant: %s\n", store::message(problem), store::detail(problem),
                    store::message({wanted}));
        fail();
    }
}

inline path make_store(const char *name = "store")
{
    const path made = folder / name;
    assert_good(store::writer::create(made.text, std::nullopt, plain, map_size));
    return made;
}

struct token_text {
    char text[40];
};

/// The token number `number`, which is at least 16 characters long.
inline token_text token(unsigned number) noexcept
{
    token_text result;
    std::snprintf(result.text, sizeof result.text, "a-token-with-number-%08u", number);
    return result;
}

/// What a child process may take before it is killed, which fails the test: nothing here can hang.
inline constexpr unsigned deadline_s = 60;

/// Starts `body() -> bool` in a child process.
template <typename Body>
pid_t start_child(const Body &body)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        // cmocka has these, and would go on with the next test.
        for (const int number : {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS}) {
            (void) std::signal(number, SIG_DFL);
        }
        alarm(deadline_s);
        _exit(body() ? 0 : 1);
    }
    return child;
}

/// Waits for a child process, and returns its status as waitpid(2) has it.
inline int status_of(pid_t child)
{
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/// Runs `body() -> bool` in a child process, which must return true and not crash. LMDB must not open a store twice in
/// a process, so whatever happens to a store that the test itself has open happens there.
template <typename Body>
void in_child(const Body &body)
{
    assert_int_equal(status_of(start_child(body)), 0);
}

/// The same, for what may not be permitted: false if `body(bool &permitted) -> bool` cleared its argument.
template <typename Body>
bool in_child_if_permitted(const Body &body)
{
    constexpr int not_permitted = 77;
    const pid_t child = start_child([&] {
        bool permitted = true;
        const bool good = body(permitted);
        if (!permitted) {
            _exit(not_permitted);
        }
        return good;
    });
    const int status = status_of(child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == not_permitted) {
        return false;
    }
    assert_int_equal(status, 0);
    return true;
}

/// Waits until there is something at a path.
inline bool appears(const path &at)
{
    constexpr int deadline_ms = 30000;
    int waited_ms = 0;
    while (access(at.text, F_OK) != 0 && waited_ms < deadline_ms) {
        usleep(1000);
        waited_ms++;
    }
    return waited_ms < deadline_ms;
}

/// The record of a token, whose id tells which one it is.
inline token_record record_of(const token_text &of, std::int64_t revoked_at = 0)
{
    token_record one;
    one.id = of.text;
    one.subject = of.text;
    one.revoked_at = revoked_at;
    return one;
}

/// Commits `body(transaction &) -> fault` in another process.
template <typename Body>
void commit(const path &store, const Body &body)
{
    in_child([&] {
        store::writer writer;
        return !writer.open(store.text, map_size) && !writer.update(body);
    });
}

inline void put(const path &store, unsigned number, std::int64_t revoked_at = 0)
{
    const token_text text = token(number);
    commit(store,
           [&](store::transaction &change) { return change.put(plain(text.text), record_of(text, revoked_at)); });
}

/// What a lookup found.
struct answer {
    store::fault problem;
    bool found;
    bool revoked;
    bool right;  ///< it is the record of this token
};

inline answer look(store::reader &reader, unsigned number)
{
    static record_buffer memory;
    const token_text text = token(number);
    token_record one;

    const store::lookup_result result = reader.lookup(
        plain, make_token_key(plain(text.text)), [](void *to, std::size_t) noexcept { return to; }, memory.data(), one);
    return {result.problem, result.found, result.found && one.is_revoked(), result.found && one.id == text.text};
}

inline void assert_found(store::reader &reader, unsigned number)
{
    const answer got = look(reader, number);
    assert_good(got.problem);
    assert_true(got.found);
    assert_true(got.right);
}

inline void assert_not_found(store::reader &reader, unsigned number)
{
    const answer got = look(reader, number);
    assert_good(got.problem);
    assert_false(got.found);
}

/// A descriptor of a file. It is never closed, because that would drop all locks that LMDB has on lock.mdb in this
/// process; but asking for the same file again gives the same.
inline int descriptor_of(const path &file)
{
    static int last = -1;
    struct stat wanted;
    struct stat have;

    if (last < 0 || stat(file.text, &wanted) != 0 || fstat(last, &have) != 0 || wanted.st_ino != have.st_ino) {
        last = open(file.text, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
        assert_true(last >= 0);
    }
    return last;
}

/// Where lock.mdb has the id of the transaction that was published last (LMDB, mdb.c: MDB_txninfo) on 64-bit machines.
inline constexpr off_t lock_transaction_at = 48;

/// Further offsets there: how many slots of the table of readers were handed out, and the slots.
inline constexpr off_t lock_used_at = 56;
inline constexpr off_t lock_readers_at = 128;
inline constexpr off_t lock_reader_size = 64;

inline constexpr unsigned page_size = 4096;

/// The number at an offset of a file.
inline std::uint64_t read_number(const path &file, off_t at)
{
    std::uint64_t number = 0;
    assert_int_equal(pread(descriptor_of(file), &number, sizeof number, at), sizeof number);
    return number;
}

/// Overwrites part of a file in place.
inline void patch(const path &file, off_t at, const void *bytes, std::size_t size)
{
    assert_int_equal(pwrite(descriptor_of(file), bytes, size, at), size);
}

/// Copies a file. Not for lock.mdb of a store that is open here: see descriptor_of().
inline void copy_file(const path &from, const path &to)
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

inline off_t size_of(const path &file)
{
    struct stat info;
    assert_int_equal(stat(file.text, &info), 0);
    return info.st_size;
}

/// Puts bytes that are no record in the place of a token's, as a disk may.
inline void damage_record(const path &store, unsigned number)
{
    in_child([&] {
        MDB_env *env = nullptr;
        MDB_txn *change = nullptr;
        MDB_dbi database = 0;
        const token_text text = token(number);
        token_key key_bytes = make_token_key(plain(text.text));
        MDB_val key{key_bytes.size(), key_bytes.data()};
        MDB_val value{};
        static char bytes[4096];

        if (mdb_env_create(&env) != 0 || mdb_env_set_mapsize(env, map_size) != 0
            || mdb_env_set_maxreaders(env, store::max_readers) != 0 || mdb_env_open(env, store.text, 0, 0640) != 0
            || mdb_txn_begin(env, nullptr, 0, &change) != 0 || mdb_dbi_open(change, nullptr, 0, &database) != 0
            || mdb_get(change, database, &key, &value) != 0 || value.mv_size > sizeof bytes) {
            return false;
        }
        std::memcpy(bytes, value.mv_data, value.mv_size);
        bytes[value.mv_size - 1] ^= 1;
        value.mv_data = bytes;
        if (mdb_put(change, database, &key, &value, 0) != 0 || mdb_txn_commit(change) != 0) {
            return false;
        }
        mdb_env_close(env);
        return true;
    });
}

/// Commits the tokens 0 to `count` - 1, of which those with an odd number are revoked, in one transaction.
inline void put_many(const path &store, unsigned count)
{
    commit(store, [count](store::transaction &change) {
        for (unsigned i = 0; i < count; i++) {
            const token_text text = token(i);
            if (const store::fault problem = change.put(plain(text.text), record_of(text, i % 2))) {
                return problem;
            }
        }
        return store::fault{};
    });
}

/// A reader of the store, to be deleted by the test; a test that fails leaves it behind.
inline store::reader *open_reader(const path &store)
{
    auto *reader = new store::reader;
    assert_good(reader->open(store.text, map_size, 0));
    return reader;
}

/// What nginx's timer does once a second.
inline void look_after(store::reader &reader, const path &store)
{
    if (reader.is_open()) {
        reader.maintain();
    } else {
        (void) reader.open(store.text, map_size, store::reopen_wait_ms);
    }
}

}  // namespace pat::test
