/// Lets allocations of a program fail, one after the other: linked into nginx, or preloaded into patctl, it takes the
/// place of malloc(3) and its relatives, of mmap(2) and of nginx's slab allocator, for the program and for its
/// libraries.
///
/// The environment variable FAIL_ALLOCATIONS names a file that holds the `orders`. The program maps it when it starts,
/// so that its children share it, and so does the test: t/memory/failing.py.

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>
#include <unwind.h>

namespace pat::ngx {

[[gnu::weak]] bool is_serving() noexcept;

}  // namespace pat::ngx

extern "C" {

// Those of AddressSanitizer, if the program has it in itself.
[[gnu::weak]] void *__interceptor_malloc(std::size_t size);
[[gnu::weak]] void *__interceptor_calloc(std::size_t count, std::size_t size);
[[gnu::weak]] void *__interceptor_realloc(void *memory, std::size_t size);
[[gnu::weak]] int __interceptor_posix_memalign(void **memory, std::size_t alignment, std::size_t size);
[[gnu::weak]] void *__interceptor_aligned_alloc(std::size_t alignment, std::size_t size);
[[gnu::weak]] void *__interceptor_mmap(void *address, std::size_t length, int protection, int flags, int file,
                                       off_t offset);

}  // extern "C"

namespace {

constexpr int max_frames = 64;
constexpr int max_ranges = 256;

/// As failing.py has it.
struct orders {
    std::atomic<std::int64_t> armed;    ///< 1: allocations are counted, and may fail
    std::atomic<std::int64_t> process;  ///< of this process; -N: of all but N; 0: of all
    std::atomic<std::int64_t> first;    ///< the number of the first that fails, from 1
    std::atomic<std::int64_t> last;     ///< the number of the last
    std::atomic<std::int64_t> count;    ///< of allocations
    std::atomic<std::int64_t> failed;   ///< how many of them did
    std::int64_t base;                  ///< where the program is in memory
    std::int64_t frames;                ///< calls that led to the first that failed
    std::int64_t ranges;                ///< if any: an allocation counts if a call that leads to it is in one of them
    std::uintptr_t frame[max_frames];   ///< the innermost first
    struct {
        std::uintptr_t begin, end;  ///< relative to `base`
    } range[max_ranges];
};

orders *shared;
thread_local bool is_busy;

struct calls {
    std::int64_t count;
    std::uintptr_t call[max_frames];
};

_Unwind_Reason_Code add_call(_Unwind_Context *context, void *data) noexcept
{
    auto *found = static_cast<calls *>(data);
    if (found->count == max_frames) {
        return _URC_END_OF_STACK;
    }
    found->call[found->count++] = _Unwind_GetIP(context);
    return _URC_NO_REASON;
}

/// Whether it is one of those that the test is about.
[[nodiscard]] bool is_in_range(const calls &found) noexcept
{
    for (std::int64_t i = 0; i < found.count; i++) {
        const std::uintptr_t call = found.call[i] - static_cast<std::uintptr_t>(shared->base);
        for (std::int64_t j = 0; j < shared->ranges; j++) {
            if (call >= shared->range[j].begin && call < shared->range[j].end) {
                return true;
            }
        }
    }
    return false;
}

/// Whether this allocation is to fail.
[[nodiscard]] bool fails() noexcept
{
    if (shared == nullptr || shared->armed.load(std::memory_order_acquire) == 0 || is_busy) {
        return false;
    }
    const std::int64_t process = shared->process;
    if (process != 0 && (process > 0) != (std::abs(process) == getpid())) {
        return false;
    }

    calls found{};
    is_busy = true;
    _Unwind_Backtrace(add_call, &found);
    is_busy = false;
    if (shared->ranges > 0 && !is_in_range(found)) {
        return false;
    }

    const std::int64_t number = ++shared->count;
    if (number < shared->first || number > shared->last) {
        return false;
    }
    if (++shared->failed == 1) {
        shared->frames = found.count;
        std::memcpy(shared->frame, found.call, sizeof(found.call));
    }
    errno = ENOMEM;
    return true;
}

/// The function of this name that the program would call without this file.
template <typename Function>
[[nodiscard]] Function *next(Function *&known, Function *of_sanitizer, const char *name) noexcept
{
    if (known == nullptr) {
        known = of_sanitizer != nullptr ? of_sanitizer : reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
    }
    return known;
}

[[gnu::constructor]] void map_orders() noexcept
{
    const char *path = std::getenv("FAIL_ALLOCATIONS");
    const int file = path != nullptr ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) {
        return;
    }
    void *memory = mmap(nullptr, sizeof(orders), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) {
        std::abort();
    }

    shared = static_cast<orders *>(memory);
    // The first is the program itself.
    dl_iterate_phdr(
        [](dl_phdr_info *program, std::size_t, void *) {
            shared->base = static_cast<std::int64_t>(program->dlpi_addr);
            return 1;
        },
        nullptr);
}

}  // namespace

extern "C" {

void *malloc(std::size_t size)
{
    static void *(*real)(std::size_t);
    return fails() ? nullptr : next(real, __interceptor_malloc, "malloc")(size);
}

void *calloc(std::size_t count, std::size_t size)
{
    static void *(*real)(std::size_t, std::size_t);
    return fails() ? nullptr : next(real, __interceptor_calloc, "calloc")(count, size);
}

void *realloc(void *memory, std::size_t size)
{
    static void *(*real)(void *, std::size_t);
    return fails() ? nullptr : next(real, __interceptor_realloc, "realloc")(memory, size);
}

int posix_memalign(void **memory, std::size_t alignment, std::size_t size)
{
    static int (*real)(void **, std::size_t, std::size_t);
    return fails() ? ENOMEM : next(real, __interceptor_posix_memalign, "posix_memalign")(memory, alignment, size);
}

void *aligned_alloc(std::size_t alignment, std::size_t size)
{
    static void *(*real)(std::size_t, std::size_t);
    return fails() ? nullptr : next(real, __interceptor_aligned_alloc, "aligned_alloc")(alignment, size);
}

/// Sanitizers have one that would not come here.
char *strdup(const char *text)
{
    const std::size_t size = std::strlen(text) + 1;
    void *copy = malloc(size);
    return copy != nullptr ? static_cast<char *>(std::memcpy(copy, text, size)) : nullptr;
}

void *mmap(void *address, std::size_t length, int protection, int flags, int file, off_t offset)
{
    static void *(*real)(void *, std::size_t, int, int, int, off_t);
    return fails() ? MAP_FAILED
                   : next(real, __interceptor_mmap, "mmap")(address, length, protection, flags, file, offset);
}

void *mmap64(void *address, std::size_t length, int protection, int flags, int file, off64_t offset)
{
    return mmap(address, length, protection, flags, file, offset);
}

// The linker has nginx call these (--wrap).
#define WRAP(name)                                                                                                     \
    [[gnu::weak]] void *__real_##name(void *pool, std::size_t size);                                                   \
    void *__wrap_##name(void *pool, std::size_t size)                                                                  \
    {                                                                                                                  \
        return fails() ? nullptr : __real_##name(pool, size);                                                          \
    }

WRAP(ngx_slab_alloc)
WRAP(ngx_slab_alloc_locked)
WRAP(ngx_slab_calloc)
WRAP(ngx_slab_calloc_locked)

/// LeakSanitizer asks when a process ends. Of nginx's, those that serve release what they have; others just end.
int __lsan_is_turned_off()
{
    return pat::ngx::is_serving == nullptr || !pat::ngx::is_serving() ? 1 : 0;
}

}  // extern "C"
