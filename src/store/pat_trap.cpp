#include "store/pat_trap.h"

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
        siglongjmp(current.out, 1);
    }

    // Not ours: the instruction is run again, under the action that was there before. kill(2) must send it again.
    for (const trapped_signal &signal : trapped_signals) {
        if (signal.number == number) {
            sigaction(number, &signal.previous, nullptr);
        }
    }
    if (info->si_code <= 0) {
        raise(number);
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
        siglongjmp(current.out, 1);
    }
}

}  // namespace pat::store::trap
