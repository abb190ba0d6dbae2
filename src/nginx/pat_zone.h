#pragma once

#include "core/pat_policy.h"
#include "core/pat_usage.h"
#include "nginx/pat_ngx.h"

#include <array>
#include <cstdint>
#include <span>

/// `auth_pat_zone`: counters and last use, in memory that all workers share.
///
/// A request touches only the memory of its worker. Once a second, and when it exits, a worker merges what it has
/// counted into the shared memory. The lock covers merging and reading the figures.
namespace pat::ngx {

struct main_conf;
struct store_conf;

using verdict_counts = std::array<std::uint64_t, verdict_count>;

struct counters {
    verdict_counts requests;  ///< decisions that were enforced
    verdict_counts dry_run;   ///< refusals that auth_pat_dry_run kept from being enforced
    verdict_counts closed;    ///< running requests that a recheck closed
    std::uint64_t fail_open;  ///< requests that auth_pat_fail_open let in
};

/// The last 15 minutes, in slices.
struct history {
    static constexpr std::size_t slice_count = 90;
    static constexpr std::int64_t slice_seconds = 10;

    struct slice {
        std::int64_t number;  ///< Unix seconds / slice_seconds
        std::array<std::uint32_t, verdict_count> requests;
        std::array<std::uint32_t, verdict_count> dry_run;
        std::uint32_t fail_open;
    };

    std::array<slice, slice_count> slices;
};

/// Longer names of servers are cut off here. Longer paths of stores are refused in a configuration with a zone.
inline constexpr std::size_t max_zone_name_length = 255;

/// A name in shared memory, and what is counted under it.
struct zone_name;
/// The contents of the zone.
struct zone_contents;
/// What a worker has counted and not yet merged.
struct zone_worker;

/// A server of the configuration.
struct server_entry {
    ngx_str_t name;
    zone_name *totals;     ///< nullptr if there is no room for them
    std::uint32_t number;  ///< of `totals`, as long as they belong to this server
};

/// The configuration of the zone.
struct zone_conf {
    ngx_shm_zone_t *memory;
    main_conf *main;
    ngx_array_t servers;  ///< of server_entry: one for each server_name
    zone_contents *contents;

    /// Set only in a process that serves.
    zone_worker *worker;
};

/// Adds the zone to the configuration. On failure, logs the error and returns nullptr.
[[nodiscard]] zone_conf *add_zone(ngx_conf_t *cf, main_conf &mcf, ngx_str_t &name, std::size_t size) noexcept;

/// Numbers the servers of the configuration, once their names are known.
[[nodiscard]] ngx_int_t number_servers(ngx_conf_t *cf, zone_conf &zone) noexcept;

/// Starts to count the requests of this cycle, in a process that serves, unless it does already. False if out of
/// memory.
[[nodiscard]] bool attach_zone(ngx_cycle_t *cycle, zone_conf &zone) noexcept;

/// Merges what this process has counted, and stops counting.
void detach_zone() noexcept;

/// The index of a verdict in `verdict_counts`.
[[nodiscard]] constexpr std::size_t index_of(access_verdict verdict) noexcept
{
    return static_cast<std::size_t>(verdict);
}

/// The worker's counters for the server of a request, for the caller to add to; nullptr without a zone.
[[nodiscard]] counters *counters_of(const ngx_http_request_t *r) noexcept;

/// Counts a use of a token. Requires that counters_of() is not nullptr.
void count_use(const ngx_http_request_t *r, const store_conf &store, std::string_view id, const address &peer) noexcept;

/// The figures of one server name.
struct server_figures {
    ngx_str_t name;
    counters counts;
};

struct usage_figures {
    std::uint32_t known;
    std::uint32_t capacity;
    std::uint64_t evicted;
    std::uint64_t lost_uses;
    std::uint64_t cursor;
};

struct zone_figures {
    time_t since;
    counters total;  ///< of all servers, including those of earlier configurations
    std::span<server_figures> servers;
    history *last;
    usage_figures usage;
    std::span<token_use> most_used;
};

/// Copies the figures of the zone into the pool. Returns false on failure.
[[nodiscard]] bool read_zone(zone_conf &zone, ngx_pool_t *pool, zone_figures &out) noexcept;

/// Reports uses of a store's tokens, copied into the pool: see usage_table::report(). Returns false on failure.
[[nodiscard]] bool report_usage(zone_conf &zone, const store_conf &store, std::uint64_t &cursor, ngx_pool_t *pool,
                                std::span<const token_use> &out) noexcept;

}  // namespace pat::ngx
