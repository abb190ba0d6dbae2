#pragma once

#include "core/pat_digest.h"
#include "nginx/pat_ngx.h"
#include "store/pat_environment.h"
#include "store/pat_fault.h"
#include "store/pat_ownership.h"

/// The stores that are open in this process: one reader per path, however many cycles use it. They outlive cycles,
/// unlike the rest of the module's state. The master opens none.
namespace pat::ngx {

struct main_conf;
struct store_conf;

/// Marks this process as serving requests. Must be called after fork (reader rule 1).
void begin_serving() noexcept;

/// Whether this process serves requests. A new cycle there is a reload with `master_process off`, for which nginx does
/// not run init_process.
[[nodiscard]] bool is_serving() noexcept;

/// Opens the stores of a cycle in a process that serves, except those that an earlier call has, and maintains them once
/// a second: a store that cannot be opened is retried. They are released when the cycle's pool is destroyed. False if
/// out of memory.
[[nodiscard]] bool attach_stores(ngx_cycle_t *cycle, const main_conf &mcf) noexcept;

/// What a check of a store finds. A child process sends it through a pipe.
struct trial_result {
    int obstacle = 0;  ///< errno, if the store could not be checked
    store::fault problem;
    store::refusal refused;         ///< details of a problem of permissions
    bool has_group = false;         ///< this process has the group of what was refused
    bool has_stale_groups = false;  ///< the user has it, but got it after this process started
    bool is_led_by_root = false;    ///< only root can redirect the path to what was refused
    bool is_led_by_others = false;  ///< others than root and the store's owner can redirect its path
    bool has_data = false;
    store::file_identity data{};  ///< of what the path leads to
};

/// Opens the store and closes it again, in a process that does not serve: shows whether it can be read, and whether it
/// was made with this hasher.
void look_at(const store_conf &store, const token_hasher &make_digest, trial_result &out) noexcept;

/// Does the same with a store that this process serves from; false if it does not.
[[nodiscard]] bool find_open(const store_conf &store, const token_hasher &make_digest, trial_result &out) noexcept;

/// Logs a fault of a store.
void log_fault(ngx_uint_t level, ngx_log_t *log, const char *path, const store::fault &problem) noexcept;

}  // namespace pat::ngx
