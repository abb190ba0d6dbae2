#pragma once

#include <csetjmp>
#include <csignal>
#include <ctime>

struct MDB_env;

/// A memory-mapped file can be cut short or overwritten by anyone who may write it: the next read is then a SIGBUS, or
/// a SIGSEGV where a page number leads out of the map, or LMDB ends the process because it found a page that can't be.
/// None of these must end an nginx worker, so calls that touch a map run in a trap, which turns them into an answer.
/// Nor must a search that never ends, because a page says that it has a negative number of keys: the trap counts the
/// steps.
///
///     trap::install();                        before a file is mapped
///     mdb_env_set_assert(env, trap::failed_assertion);
///     if (!trap::run([&] { … })) { … }        the map is not to be used again
///
/// Opening a store also takes locks that others may hold for ever (lock.mdb's, and those on it). run_for() gives up
/// waiting for them.
///
/// One thread only. What runs in a trap has no destructors that matter: after a fault they are not called.
namespace pat::store::trap {

enum class outcome : unsigned char {
    done,
    fault,  ///< a page that can't be, or past the end of the file, or a search without an end
    late,   ///< the time was up
};

struct state {
    sigjmp_buf out;
    volatile std::sig_atomic_t armed;
    unsigned steps;  ///< that the searches in this trap may still take
};

extern state current;

/// A search compares a dozen keys on each of at most 32 pages; one trap has two or three searches in it.
inline constexpr unsigned max_steps = 1 << 16;

/// To be called for each key that a search compares with.
inline void count_step() noexcept
{
    if (--current.steps == 0 && current.armed != 0) {
        siglongjmp(current.out, static_cast<int>(outcome::fault));
    }
}

/// A timer whose signal leaves the trap that is armed when the time is up, while it lives.
class deadline {
public:
    explicit deadline(unsigned limit_ms) noexcept;
    deadline(const deadline &) = delete;
    deadline &operator=(const deadline &) = delete;
    ~deadline();

private:
    timer_t timer_{};
    struct sigaction previous_ {};
    bool is_set_ = false;
};

/// Takes over SIGBUS and SIGSEGV; those that come from elsewhere are left to who had them before.
void install() noexcept;

/// For mdb_env_set_assert().
void failed_assertion(MDB_env *env, const char *text) noexcept;

/// Runs `body`; false if a fault cut it short.
template <typename Body>
[[nodiscard]] inline bool run(const Body &body) noexcept
{
    // Without the signal mask, which would be a syscall; the handler does not block its own signal.
    if (sigsetjmp(current.out, 0) != 0) {
        current.armed = 0;
        return false;
    }

    current.steps = max_steps;
    current.armed = 1;
    body();
    current.armed = 0;

    return true;
}

/// The same, for at most `limit_ms` milliseconds. What is cut short must be waiting: for a lock, or for a file to open.
template <typename Body>
[[nodiscard]] inline outcome run_for(unsigned limit_ms, const Body &body) noexcept
{
    const deadline limit{limit_ms};

    if (const int reason = sigsetjmp(current.out, 0); reason != 0) {
        current.armed = 0;
        return static_cast<outcome>(reason);
    }

    current.steps = max_steps;
    current.armed = 1;
    body();
    current.armed = 0;

    return outcome::done;
}

}  // namespace pat::store::trap
