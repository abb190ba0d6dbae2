#pragma once

#include <csetjmp>
#include <csignal>

struct MDB_env;

/// A memory-mapped file can be cut short by anyone who may write it, and the next read is a SIGBUS; and LMDB ends the
/// process when it finds a page that can't be. Neither must end an nginx worker, so calls that touch a map run in a
/// trap, which turns both into an answer.
///
///     trap::install();                        once in a process, before the first map
///     mdb_env_set_assert(env, trap::failed_assertion);
///     if (!trap::run([&] { … })) { … }        the map is not to be used again
///
/// One thread only. What runs in a trap has no destructors that matter: after a fault they are not called.
namespace pat::store::trap {

struct state {
    sigjmp_buf out;
    volatile std::sig_atomic_t armed;
};

extern state current;

/// Takes over SIGBUS; one that comes from elsewhere still ends the process as it would have done.
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

    current.armed = 1;
    body();
    current.armed = 0;

    return true;
}

}  // namespace pat::store::trap
