#pragma once

#include "pat_cmocka.h"

#include "core/pat_digest.h"
#include "core/pat_record.h"
#include "store/pat_environment.h"
#include "store/pat_reader.h"
#include "store/pat_writer.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/// Stores in a temporary folder. Everything here is trivial to destroy, because cmocka leaves a test with longjmp.
namespace pat::test {

/// Small, so that a store that grows without bound is noticed.
inline constexpr std::size_t map_size = std::size_t{64} << 20;

inline const hasher plain;

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

/// Runs `body() -> bool` in a child process, which must return true and not crash. LMDB must not open a store twice in
/// a process, so whatever happens to a store that the test itself has open happens there.
template <typename Body>
void in_child(const Body &body)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(body() ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/// The record of a token, whose id tells which one it is.
inline record record_of(const token_text &of, std::int64_t revoked_at = 0)
{
    record one;
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
    record one;

    const store::lookup_result result = reader.lookup(
        plain, text.text, [](void *to, std::size_t) noexcept { return to; }, memory.data(), one);
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

inline off_t size_of(const path &file)
{
    struct stat info;
    assert_int_equal(stat(file.text, &info), 0);
    return info.st_size;
}

/// A reader of the store, to be deleted by the test; a test that fails leaves it behind.
inline store::reader *open_reader(const path &store)
{
    auto *reader = new store::reader;
    assert_good(reader->open(store.text, map_size, 0));
    return reader;
}

}  // namespace pat::test
