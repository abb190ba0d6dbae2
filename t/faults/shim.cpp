/// Preloaded into nginx, pat-sync and patctl, makes calls fail, wait, or be the last ones of their process, as a file
/// says that t/faults/shim.py maps, too. libfaketime could only do the clock, and would not say when a process has
/// noticed: nginx clears its environment, and the file that libfaketime reads instead is read now and then.

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <dlfcn.h>
#include <fcntl.h>
#include <lmdb.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

/// In the order of the fields in shim.py. Those that kill do so once.
struct controls {
    std::atomic<std::int64_t> clock_seconds;        ///< added to the time of day
    std::atomic<std::int64_t> kill_in_lookup;       ///< in a read transaction
    std::atomic<std::int64_t> kill_in_transaction;  ///< after a page was written
    std::atomic<std::int64_t> kill_unpublished;     ///< after a meta page was written, before lock.mdb says so
    std::atomic<std::int64_t> data_error;           ///< an errno for pages
    std::atomic<std::int64_t> meta_error;           ///< an errno for meta pages
    std::atomic<std::int64_t> sync_error;           ///< an errno for fdatasync(2)
    std::atomic<std::int64_t> sync_microseconds;    ///< how long fdatasync(2) takes
};

static_assert(std::atomic<std::int64_t>::is_always_lock_free);

controls none;
controls *control = &none;

[[gnu::constructor]] void map_controls()
{
    const char *path = std::getenv("FAULTS_SHIM");
    const int file = path == nullptr ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        return;
    }
    void *mapped = mmap(nullptr, sizeof(controls), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) {
        control = static_cast<controls *>(mapped);
    }
    close(file);
}

/// The function that this library stands before.
template <typename Function>
Function *next(const char *name)
{
    return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

/// Whether a descriptor is that of a store's data file.
bool is_data_file(int file)
{
    char link[32];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", file);

    char target[4096];
    const ssize_t size = readlink(link, target, sizeof target);
    constexpr char name[] = "/data.mdb";
    constexpr ssize_t name_size = sizeof name - 1;
    return size >= name_size && std::memcmp(target + size - name_size, name, name_size) == 0;
}

void kill_once(std::atomic<std::int64_t> &wanted)
{
    if (wanted.exchange(0) != 0) {
        raise(SIGKILL);
    }
}

bool writes_are_watched()
{
    return control->kill_in_transaction != 0 || control->kill_unpublished != 0 || control->data_error != 0
           || control->meta_error != 0;
}

/// Writes to a data file, or fails.
template <typename Body>
ssize_t write_pages(bool is_meta, const Body &body)
{
    const auto error = static_cast<int>(is_meta ? control->meta_error : control->data_error);
    if (error != 0) {
        errno = error;
        return -1;
    }
    const ssize_t written = body();
    kill_once(is_meta ? control->kill_unpublished : control->kill_in_transaction);
    return written;
}

/// The two meta pages are the first ones.
bool is_meta_page(off_t offset)
{
    return offset < 2 * sysconf(_SC_PAGESIZE);
}

}  // namespace

extern "C" {

[[gnu::visibility("default")]] ssize_t pwrite(int file, const void *bytes, std::size_t size, off_t offset)
{
    static auto *real = next<decltype(pwrite)>("pwrite");
    const auto body = [&] { return real(file, bytes, size, offset); };
    return writes_are_watched() && is_data_file(file) ? write_pages(is_meta_page(offset), body) : body();
}

[[gnu::visibility("default")]] ssize_t writev(int file, const iovec *parts, int count)
{
    static auto *real = next<decltype(writev)>("writev");
    const auto body = [&] { return real(file, parts, count); };
    return writes_are_watched() && is_data_file(file) ? write_pages(false, body) : body();
}

[[gnu::visibility("default")]] int fdatasync(int file)
{
    static auto *real = next<decltype(fdatasync)>("fdatasync");
    if ((control->sync_error != 0 || control->sync_microseconds != 0) && is_data_file(file)) {
        usleep(static_cast<useconds_t>(control->sync_microseconds));
        if (control->sync_error != 0) {
            errno = static_cast<int>(control->sync_error);
            return -1;
        }
    }
    return real(file);
}

[[gnu::visibility("default")]] int mdb_get(MDB_txn *transaction, MDB_dbi database, MDB_val *key, MDB_val *value)
{
    static auto *real = next<decltype(mdb_get)>("mdb_get");
    kill_once(control->kill_in_lookup);
    return real(transaction, database, key, value);
}

[[gnu::visibility("default")]] int clock_gettime(clockid_t clock, timespec *out) noexcept
{
    static auto *real = next<int(clockid_t, timespec *)>("clock_gettime");
    const int result = real(clock, out);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        out->tv_sec += control->clock_seconds;
    }
    return result;
}

[[gnu::visibility("default")]] int gettimeofday(timeval *out, void *zone) noexcept
{
    static auto *real = next<int(timeval *, void *)>("gettimeofday");
    const int result = real(out, zone);
    out->tv_sec += control->clock_seconds;
    return result;
}

[[gnu::visibility("default")]] std::time_t time(std::time_t *out) noexcept
{
    static auto *real = next<std::time_t(std::time_t *)>("time");
    const std::time_t result = real(nullptr) + control->clock_seconds;
    if (out != nullptr) {
        *out = result;
    }
    return result;
}

}  // extern "C"
