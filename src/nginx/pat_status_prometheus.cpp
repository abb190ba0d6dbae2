#include "nginx/pat_status_figures.h"

#include "core/pat_version.h"

#include <optional>

namespace pat::ngx {

namespace {

using sample = std::optional<std::int64_t>;

void write_family(reply &body, const char *name, const char *type, const char *help) noexcept
{
    body("# HELP auth_pat_", name, " ", help, "\n# TYPE auth_pat_", name, " ", type, "\n");
}

void write_single(reply &body, const char *name, const char *type, const char *help, std::uint64_t value) noexcept
{
    write_family(body, name, type, help);
    body("auth_pat_", name, " ", value, "\n");
}

/// Writes a counter with a sample for each server and verdict.
void write_verdicts(reply &body, const zone_figures &figures, const char *name, const char *help,
                    verdict_counts counters::*counts) noexcept
{
    write_family(body, name, "counter", help);
    for (const server_figures &server : figures.servers) {
        for (std::size_t i = 0; i < verdict_count; i++) {
            body("auth_pat_", name, "{server=");
            body.write_label(view(server.name));
            body(",status=\"", pat::name(static_cast<access_verdict>(i)), "\"} ", (server.counts.*counts)[i], "\n");
        }
    }
}

void write_zone(reply &body, const zone_figures &figures) noexcept
{
    write_verdicts(body, figures, "requests_total", "Requests that auth_pat decided about.", &counters::requests);
    write_verdicts(body, figures, "dry_run_total", "Requests that would have been refused without auth_pat_dry_run.",
                   &counters::dry_run);
    write_verdicts(body, figures, "closed_total", "Requests that auth_pat_recheck closed while they were running.",
                   &counters::closed);

    write_family(body, "fail_open_total", "counter",
                 "Requests that auth_pat_fail_open let in although their token could not be validated.");
    for (const server_figures &server : figures.servers) {
        body("auth_pat_fail_open_total{server=");
        body.write_label(view(server.name));
        body("} ", server.counts.fail_open, "\n");
    }

    const usage_figures &usage = figures.usage;
    write_single(body, "usage_tokens", "gauge", "Tokens whose last use the zone holds.", usage.known);
    write_single(body, "usage_capacity_tokens", "gauge", "Tokens whose last use the zone has room for.",
                 usage.capacity);
    write_single(body, "usage_evicted_total", "counter",
                 "Tokens whose last use was dropped from the zone to make room for another token.", usage.evicted);
    write_single(body, "usage_lost_total", "counter", "Uses of tokens that were dropped before they were reported.",
                 usage.lost_uses);
}

/// Writes a gauge with a sample for each store that `value` gives one for.
template <typename Value>
void write_gauge(reply &body, const status_figures &figures, const char *name, const char *help,
                 const Value &value) noexcept
{
    write_family(body, name, "gauge", help);
    for (const store_figures &store : figures.stores) {
        if (const sample number = value(store)) {
            body("auth_pat_", name, "{store=");
            body.write_label(store.path);
            body("} ", *number, "\n");
        }
    }
}

}  // namespace

void write_prometheus(reply &body, const status_figures &figures) noexcept
{
    const auto if_open = [](auto member) {
        return [member](const store_figures &store) {
            return store.problem ? sample{} : static_cast<std::int64_t>(store.now.*member);
        };
    };
    const auto if_reached = [](auto value) {
        return [value](const store_figures &store) {
            return store.problem || store.now.heartbeat == 0 ? sample{} : value(store.now.heartbeat);
        };
    };

    write_family(body, "build_info", "gauge",
                 "1, with the version of the module that the worker runs, and of its nginx.");
    body("auth_pat_build_info{version=\"", release, "\",nginx=\"" NGINX_VERSION "\"} 1\n");

    if (figures.zone != nullptr) {
        write_zone(body, figures.counted);
    }

    write_gauge(body, figures, "store_up", "1 if the store can be read, otherwise 0.",
                [](const store_figures &store) { return sample{store.problem ? 0 : 1}; });
    write_gauge(body, figures, "store_heartbeat_timestamp_seconds",
                "Unix time at which the source of the store was last reached.",
                if_reached([](std::int64_t heartbeat) { return sample{heartbeat}; }));
    write_gauge(body, figures, "store_age_seconds", "Seconds since the source of the store was last reached.",
                if_reached([](std::int64_t heartbeat) { return sample{ngx_time() - heartbeat}; }));
    write_gauge(body, figures, "store_transaction", "Id of the newest transaction committed to the store.",
                if_open(&store::condition::commit));
    write_gauge(body, figures, "store_tokens", "Tokens in the store.", if_open(&store::condition::tokens));
    write_gauge(body, figures, "store_revoked_tokens", "Revoked tokens in the store.",
                if_open(&store::condition::revoked));
    write_gauge(body, figures, "store_readers", "Slots of the store's reader table that have been handed out.",
                if_open(&store::condition::readers));
    write_gauge(body, figures, "store_max_readers", "Slots of the store's reader table.",
                if_open(&store::condition::max_readers));
    write_gauge(body, figures, "store_used_bytes", "Size of the store's data file in bytes.",
                if_open(&store::condition::used_bytes));
    write_gauge(body, figures, "store_map_bytes", "Size in bytes that the store's data file can grow to.",
                if_open(&store::condition::map_size));
}

}  // namespace pat::ngx
