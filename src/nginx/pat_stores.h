#pragma once

#include "core/pat_digest.h"
#include "nginx/pat_ngx.h"
#include "store/pat_environment.h"
#include "store/pat_fault.h"
#include "store/pat_ownership.h"

/// The stores that are open in this process: one reader for each path, however many cycles use it. This is the only
/// state of the module outside a cycle's and a request's memory. It is empty in the master process.
namespace pat::ngx {

struct main_conf;
struct store_conf;

/// Tells that this process will serve requests. To be called after fork (reader rule 1).
void begin_serving() noexcept;

/// True in a process that serves: a new cycle there is one of `master_process off`, for which nginx does not run
/// init_process.
[[nodiscard]] bool is_serving() noexcept;

/// Opens the stores of a cycle in a process that serves, and looks after them once a second: a store that can't be
/// opened is tried again. They are let go of when the pool of the cycle is destroyed.
ngx_int_t attach_stores(ngx_cycle_t *cycle, const main_conf &conf) noexcept;

/// What a look at a store shows. It goes through a pipe from one process to another.
struct trial_result {
    int obstacle = 0;  ///< an errno: there was no look
    store::fault problem;
    store::refusal refused;         ///< what belongs to the problem, if it is one of rights
    bool has_group = false;         ///< this process has the group of what was refused
    bool has_stale_groups = false;  ///< the user has it, but got it after the process was started
    bool is_led_by_root = false;    ///< to what was refused: nobody else has a folder or link on the way
    bool is_led_by_others = false;  ///< to the store: somebody else than root and its owner can lead the path elsewhere
    bool has_data = false;
    store::file_identity data{};  ///< of what the path leads to
};

/// Opens the store and closes it again, in a process that does not serve: whether it can be read, and was made with
/// this hasher, as of now.
trial_result look_at(const store_conf &store, const token_hasher &make_digest) noexcept;

/// The same for a store that this process serves from; false if it does not.
[[nodiscard]] bool find_open(const store_conf &store, const token_hasher &make_digest, trial_result &out) noexcept;

/// Writes a fault of a store to a log.
void log_fault(ngx_uint_t level, ngx_log_t *log, const char *path, const store::fault &problem) noexcept;

}  // namespace pat::ngx
