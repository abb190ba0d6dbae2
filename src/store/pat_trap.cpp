#include "store/pat_trap.h"

namespace pat::store::trap {

state current;

namespace {

struct sigaction previous;
bool installed;

void on_bus_error(int, siginfo_t *, void *) noexcept
{
    if (current.armed != 0) {
        siglongjmp(current.out, 1);
    }

    // Not ours: the instruction is run again, under the action that was there before.
    sigaction(SIGBUS, &previous, nullptr);
}

}  // namespace

void install() noexcept
{
    if (installed) {
        return;
    }

    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);

    installed = sigaction(SIGBUS, &action, &previous) == 0;
}

void failed_assertion(MDB_env *, const char *) noexcept
{
    if (current.armed != 0) {
        siglongjmp(current.out, 1);
    }
}

}  // namespace pat::store::trap
