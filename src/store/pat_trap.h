#pragma once

#include <csetjmp>
#include <csignal>
#include <ctime>

struct MDB_env;

/// Any process that may write to a memory-mapped file can truncate or overwrite it. The next read then raises SIGBUS,
/// or SIGSEGV if a page number leads out of the map, or LMDB ends the process because it found an impossible page. None
/// of these may end an nginx worker, so calls that touch a map run in a trap, which turns them into a return value. A
/// page with a negative number of keys would make a search endless, so the trap counts steps as well.
///
///     trap::install();                        before a file is mapped
///     mdb_env_set_assert(env, trap::failed_assertion);
///     if (!trap::run([&] { … })) { … }        the map must not be used again
///
/// Opening a store also takes locks that other processes may hold forever (in lock.mdb, and on it). run_for() stops
/// waiting for them after a time.
///
/// For one thread only. After a fault, the destructors of objects in the body are not called.
namespace pat::store::trap {

enum class outcome : unsigned char {
    done,
    fault,  ///< an impossible page, a page past the end of the file, or an endless search
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

/// A timer whose signal leaves the trap that is armed when the time is up, while it lives. A call outside of a trap
/// goes on waiting with SA_RESTART in `flags`, and without it is interrupted (EINTR), again and again.
class deadline {
public:
    explicit deadline(unsigned limit_ms, int flags = SA_RESTART) noexcept;
    deadline(const deadline &) = delete;
    deadline &operator=(const deadline &) = delete;
    ~deadline();

    [[nodiscard]] bool is_over() const noexcept;

private:
    timer_t timer_{};
    struct sigaction previous_ {};
    bool is_set_ = false;
};

/// Handles SIGBUS and SIGSEGV. Signals from outside a trap go to the previous handler.
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

/// The same, for at most `limit_ms` milliseconds. Interrupts `body` only while it waits for a lock or to open a file.
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
