#include "pat_temp_store.h"

#include "store/pat_ownership.h"

#include <cstdarg>
#include <string_view>

#include <dlfcn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

/// The calls of the system that the store makes, in which a test can have one fail. They are defined here, so the
/// linker prefers them to those of the C library.
namespace {

using namespace pat;
using namespace pat::test;

struct {
    int at = -1;              ///< which of the calls fails, from 0 on; none if negative
    int error = 0;            ///< with this errno
    int passed = 0;           ///< how many there were
    const char *failed = "";  ///< the one that has
    int opens = 0;            ///< how many files were opened
    int zero_at = -1;         ///< which of them becomes descriptor 0
    int inherited = 0;        ///< how many of them a program that is started would have
    int lmdb_opens = 0;       ///< how many files LMDB has opened
    int swapped_at = -1;      ///< which of them is another one than before and after
} calls;

/// Where the files are that LMDB gets instead.
path others;

/// Whether a call comes from this program, and not from LMDB.
bool is_ours(const void *caller) noexcept
{
    Dl_info of_caller;
    Dl_info of_program;
    return dladdr(caller, &of_caller) != 0 && dladdr(&calls, &of_program) != 0
           && of_caller.dli_fbase == of_program.dli_fbase;
}

bool fails(const char *name, const void *caller) noexcept
{
    if (calls.at < 0 || !is_ours(caller) || calls.passed++ != calls.at) {
        return false;
    }
    calls.failed = name;
    errno = calls.error;
    return true;
}

/// Takes note of a file that is to be opened.
void note_open(int flags, const void *caller) noexcept
{
    if (is_ours(caller)) {
        if (calls.opens++ == calls.zero_at) {
            close(0);
        }
        calls.inherited += (flags & O_CLOEXEC) == 0 ? 1 : 0;
    }
}

template <typename... Arguments>
int call(const char *name, const void *caller, long number, Arguments... arguments) noexcept
{
    return fails(name, caller) ? -1 : static_cast<int>(syscall(number, arguments...));
}

}  // namespace

extern "C" int stat(const char *path, struct stat *out) noexcept
{
    return call("stat", __builtin_return_address(0), SYS_newfstatat, AT_FDCWD, path, out, 0);
}

extern "C" int lstat(const char *path, struct stat *out) noexcept
{
    return call("lstat", __builtin_return_address(0), SYS_newfstatat, AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW);
}

extern "C" int fstat(int fd, struct stat *out) noexcept
{
    return call("fstat", __builtin_return_address(0), SYS_fstat, fd, out);
}

extern "C" int fstatat(int fd, const char *path, struct stat *out, int flags) noexcept
{
    return call("fstatat", __builtin_return_address(0), SYS_newfstatat, fd, path, out, flags);
}

extern "C" int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    note_open(flags, __builtin_return_address(0));
    if (!is_ours(__builtin_return_address(0)) && calls.lmdb_opens++ == calls.swapped_at) {
        const pat::test::path other = others / (std::strrchr(path, '/') + 1);
        const pat::test::path aside = others / "aside";
        if (rename(path, aside.text) != 0 || rename(other.text, path) != 0) {
            _exit(1);
        }
        const auto result = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
        if (rename(path, other.text) != 0 || rename(aside.text, path) != 0) {
            _exit(1);
        }
        return result;
    }
    return call("open", __builtin_return_address(0), SYS_openat, AT_FDCWD, path, flags, mode);
}

extern "C" int openat(int fd, const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    note_open(flags, __builtin_return_address(0));
    return call("openat", __builtin_return_address(0), SYS_openat, fd, path, flags, mode);
}

extern "C" int fcntl(int fd, int command, ...)
{
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    const bool is_lock = command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK;
    const bool unlocks = is_lock && static_cast<const struct flock *>(argument)->l_type == F_UNLCK;
    const char *name = unlocks ? "unlock" : is_lock ? "lock" : "fcntl";
    return call(name, __builtin_return_address(0), SYS_fcntl, fd, command, argument);
}

extern "C" int flock(int fd, int operation) noexcept
{
    return call((operation & LOCK_UN) != 0 ? "unlock" : "flock", __builtin_return_address(0), SYS_flock, fd, operation);
}

extern "C" ssize_t pread(int fd, void *to, std::size_t size, off_t at)
{
    return fails("pread", __builtin_return_address(0)) ? -1 : syscall(SYS_pread64, fd, to, size, at);
}

extern "C" int fstatvfs(int fd, struct statvfs *out) noexcept
{
    static const auto real = reinterpret_cast<int (*)(int, struct statvfs *)>(dlsym(RTLD_NEXT, "fstatvfs"));
    return fails("fstatvfs", __builtin_return_address(0)) ? -1 : real(fd, out);
}

namespace {

int lowest_free_descriptor() noexcept
{
    const int fd = dup(STDERR_FILENO);
    close(fd);
    return fd;
}

/// The calls whose failure was not noticed, one after the other.
char unnoticed[1000];

/// Has each call in turn fail, in a process of its own, until none does. `body() -> fault` must tell of it or be good,
/// must leave no file open, and must be good when it is called again.
template <typename Body>
void each_call_fails(int error, const Body &body)
{
    struct result {
        bool has_failed;
        bool is_noticed;
        bool is_clean;
        bool is_good_again;
        char name[20];
    };
    static auto *got =
        static_cast<result *>(mmap(nullptr, sizeof(result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    assert_true(got != MAP_FAILED);

    unnoticed[0] = '\0';
    for (int at = 0;; at++) {
        assert_true(at < 500);
        in_child([&] {
            *got = {};
            const int before = lowest_free_descriptor();
            calls = {.at = at, .error = error};
            const store::fault problem = body();
            got->has_failed = calls.passed > at;
            got->is_noticed = static_cast<bool>(problem);
            calls.at = -1;
            got->is_clean = lowest_free_descriptor() == before;
            got->is_good_again = !body();
            std::snprintf(got->name, sizeof got->name, "%s", calls.failed);
            return true;
        });
        if (!got->has_failed) {
            break;
        }
        const char *label = label_at(got->name, static_cast<std::size_t>(at));
        assert_row(label, got->is_clean);
        assert_row(label, got->is_good_again);
        if (!got->is_noticed) {
            const std::size_t length = std::strlen(unnoticed);
            std::snprintf(unnoticed + length, sizeof unnoticed - length, "%s ", got->name);
        }
    }
    assert_false(got->is_noticed);
    assert_true(got->is_clean);
}

store::fault open_and_close(const path &store)
{
    const int before = lowest_free_descriptor();
    auto *reader = new store::reader;
    const store::fault problem = reader->open(store.text, map_size, 1000);
    const bool is_right = look(*reader, 1).right;
    reader->close();
    const bool is_clean = lowest_free_descriptor() == before || calls.zero_at >= 0;
    delete reader;
    if ((!problem && !is_right) || !is_clean) {
        _exit(1);
    }
    return problem;
}

store::fault change_and_close(const path &store)
{
    store::writer writer;
    const store::fault problem = writer.open(store.text, map_size);
    return problem ? problem : writer.update([](store::transaction &change) {
        const token_text text = token(1);
        return change.put(plain(text.text), record_of(text));
    });
}

// Not noticed, in this order: what is looked at before it is opened, and again then; a descriptor that only a writer
// has a use for; mutexes that cannot be read, so that the store is opened once more; locks that end with their file,
// and between them, who else may be writing.

void a_reader_tells_of_a_call_that_fails(void **)
{
    const path store = make_store();
    put(store, 1);
    each_call_fails(ENOMEM, [&] { return open_and_close(store); });
    assert_string_equal(unnoticed, "fstatat fstatat fstatat fcntl pread pread unlock unlock ");
}

void a_writer_tells_of_a_call_that_fails(void **)
{
    const path store = make_store();
    each_call_fails(ENOMEM, [&] { return change_and_close(store); });
    assert_string_equal(unnoticed,
                        "fstatat fstatat fstatat pread pread unlock unlock pread unlock unlock pread unlock unlock ");
}

void a_creation_tells_of_a_call_that_fails(void **)
{
    each_call_fails(ENOMEM, [&] {
        char name[40];
        std::snprintf(name, sizeof name, "store-%d", getpid());
        const store::fault problem = store::writer::create((folder / name).text, std::nullopt, plain, map_size);
        return problem.kind == store::fault_kind::exists ? store::fault{} : problem;
    });
    assert_string_equal(unnoticed, "fstatat fstatat fstatat pread pread unlock unlock pread unlock unlock ");
}

void a_call_that_is_interrupted_while_it_waits_is_made_again(void **)
{
    const path store = make_store();
    put(store, 1);
    each_call_fails(EINTR, [&] { return open_and_close(store); });
    assert_string_equal(unnoticed, "fstatat flock fstatat fstatat fcntl pread pread unlock unlock ");
    each_call_fails(EINTR, [&] { return change_and_close(store); });
    assert_string_equal(unnoticed, "fstatat flock fstatat fstatat pread pread unlock lock lock unlock pread unlock "
                                   "lock lock unlock pread unlock unlock ");
}

void lmdb_opens_the_files_that_were_checked(void **)
{
    const path store = make_store();
    others = folder / "others";
    assert_int_equal(mkdir(others.text, 0700), 0);
    for (const char *file : {"data.mdb", "lock.mdb"}) {
        copy_file(store / file, others / file);
    }
    for (const bool writes : {false, true}) {
        const int files = writes ? 3 : 2;
        for (int at = 0; at <= files; at++) {
            in_child([&] {
                calls.lmdb_opens = 0;
                calls.swapped_at = at;
                auto *opened = new store::environment;
                const store::fault problem =
                    opened->open(store.text, writes ? store::open_mode::write : store::open_mode::read, map_size, 0);
                return calls.lmdb_opens == files
                       && problem.kind == (at < files ? store::fault_kind::replaced : store::fault_kind::none);
            });
        }
    }
}

void a_file_may_have_the_descriptor_0(void **)
{
    const path store = make_store();
    put(store, 1);
    int opens = 1;
    for (int at = 0; at < opens; at++) {
        in_child([&] {
            calls.opens = 0;
            calls.zero_at = at;
            return !open_and_close(store) && lowest_free_descriptor() == 0;
        });
        calls.opens = 0;
        assert_good(open_and_close(store));
        opens = calls.opens;
    }
    assert_true(opens >= 4);
}

void a_program_that_is_started_has_no_file_of_a_store(void **)
{
    const path store = make_store();
    put(store, 1);
    calls.inherited = 0;
    assert_good(open_and_close(store));
    assert_good(store::writer::create((folder / "new").text, std::nullopt, plain, map_size));
    in_child([&] { return chdir(folder.text) == 0 && !store::check_way("new", geteuid()) && calls.inherited == 0; });
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(a_reader_tells_of_a_call_that_fails),
        store_test(a_writer_tells_of_a_call_that_fails),
        store_test(a_creation_tells_of_a_call_that_fails),
        store_test(a_call_that_is_interrupted_while_it_waits_is_made_again),
        store_test(lmdb_opens_the_files_that_were_checked),
        store_test(a_file_may_have_the_descriptor_0),
        store_test(a_program_that_is_started_has_no_file_of_a_store),
    };
    return cmocka_run_group_tests_name("store system", tests, nullptr, nullptr);
}
