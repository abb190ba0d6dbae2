#include "store/pat_trap.h"

#include <cstdint>
#include <ctime>

#include <unistd.h>

namespace pat::store::trap {

state current;

namespace {

struct trapped_signal {
    int number;
    struct sigaction previous;
};

trapped_signal trapped_signals[] = {{SIGBUS, {}}, {SIGSEGV, {}}};

void on_fault(int number, siginfo_t *info, void *) noexcept
{
    if (current.armed != 0) {
        siglongjmp(current.out, static_cast<int>(outcome::fault));
    }

    // Not ours: restore the previous action and run the instruction again. A signal of kill(2) must be sent again.
    for (const trapped_signal &signal : trapped_signals) {
        if (signal.number == number) {
            sigaction(number, &signal.previous, nullptr);
        }
    }
    if (info->si_code <= 0) {
        raise(number);
    }
}

/// A signal with the same number on all architectures that nothing else uses. It is ours only while a deadline lives.
constexpr int deadline_signal = SIGVTALRM;

/// The number of signals so far, and the processor time of this thread at the last of them.
volatile std::sig_atomic_t signals;
std::int64_t used_before_ns;

/// A process that was stopped, or is slow, may be anywhere when its time is up, even in malloc(3). One that waits uses
/// no processor time from one signal to the next. Waking it up all the time delays the end by a second at most.
void on_deadline(int) noexcept
{
    constexpr std::int64_t handler_ns = 500'000;
    constexpr int max_signals = 20;

    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    const std::int64_t used_ns = used.tv_sec * std::int64_t{1'000'000'000} + used.tv_nsec;
    const bool waits = signals > 0 && used_ns - used_before_ns < handler_ns;
    used_before_ns = used_ns;
    signals = signals + 1;

    if (current.armed != 0 && (waits || signals >= max_signals)) {
        siglongjmp(current.out, static_cast<int>(outcome::late));
    }
}

}  // namespace

void install() noexcept
{
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);

    for (trapped_signal &signal : trapped_signals) {
        struct sigaction before;
        if (sigaction(signal.number, &action, &before) == 0 && before.sa_sigaction != on_fault) {
            signal.previous = before;
        }
    }
}

void failed_assertion(MDB_env *, const char *) noexcept
{
    if (current.armed != 0) {
        siglongjmp(current.out, static_cast<int>(outcome::fault));
    }
}

deadline::deadline(unsigned limit_ms, int flags) noexcept
{
    signals = 0;

    struct sigaction action {};
    action.sa_handler = on_deadline;
    action.sa_flags = SA_NODEFER | flags;
    sigemptyset(&action.sa_mask);
    if (sigaction(deadline_signal, &action, &previous_) != 0) {
        return;
    }

    // Send it to this thread, not to one of nginx's thread pools.
    struct sigevent event {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = deadline_signal;
    event._sigev_un._tid = gettid();
    is_set_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    if (!is_set_) {
        sigaction(deadline_signal, &previous_, nullptr);
        return;
    }

    // Repeat the signal: the first may come just before the trap is armed, and the second shows whether the thread
    // waits.
    constexpr long again_ns = 50'000'000;
    const struct itimerspec timeout = {{0, again_ns}, {limit_ms / 1000, limit_ms % 1000 * 1'000'000L}};
    timer_settime(timer_, 0, &timeout, nullptr);
}

bool deadline::is_over() const noexcept
{
    return is_set_ && signals > 0;
}

deadline::~deadline()
{
    if (is_set_) {
        timer_delete(timer_);
        sigaction(deadline_signal, &previous_, nullptr);
    }
}

}  // namespace pat::store::trap
