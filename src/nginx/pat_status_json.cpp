#include "nginx/pat_status_figures.h"

#include "core/pat_version.h"
#include "nginx/pat_conf.h"

#include <array>

namespace pat::ngx {

namespace {

void write_counts(reply &body, const char *name, const verdict_counts &counts) noexcept
{
    body("\"", name, "\":{");
    for (std::size_t i = 0; i < counts.size(); i++) {
        body(i == 0 ? "\"" : ",\"", pat::name(static_cast<access_verdict>(i)), "\":", counts[i]);
    }
    body("}");
}

void write_counters(reply &body, const counters &counts) noexcept
{
    write_counts(body, "requests", counts.requests);
    body(",");
    write_counts(body, "dry_run", counts.dry_run);
    body(",\"fail_open\":", counts.fail_open, ",");
    write_counts(body, "closed", counts.closed);
}

/// Writes a count for each slice up to `newest`, oldest first.
template <typename Count>
void write_series(reply &body, const history &last, std::int64_t newest, const Count &count) noexcept
{
    constexpr auto slices = static_cast<std::int64_t>(history::slice_count);

    body("[");
    for (std::int64_t number = newest - slices + 1; number <= newest; number++) {
        const history::slice &slice = last.slices[static_cast<std::size_t>(number % slices)];
        body(slice.number == number ? count(slice) : 0, number == newest ? "]" : ",");
    }
}

void write_history(reply &body, const char *name, const history &last, std::int64_t newest,
                   std::array<std::uint32_t, verdict_count> history::slice::*counts) noexcept
{
    body("\"", name, "\":{");
    for (std::size_t i = 0; i < verdict_count; i++) {
        body(i == 0 ? "\"" : ",\"", pat::name(static_cast<access_verdict>(i)), "\":");
        write_series(body, last, newest, [&](const history::slice &slice) { return (slice.*counts)[i]; });
    }
    body("}");
}

void write_zone(reply &body, const zone_conf &zone, const zone_figures &figures) noexcept
{
    body("{\"name\":");
    body.write_string(view(zone.memory->shm.name));
    body(",\"size\":", zone.memory->shm.size, ",\"since\":", figures.since, "},");

    write_counters(body, figures.total);

    body(",\"servers\":[");
    for (const server_figures &server : figures.servers) {
        body(&server == figures.servers.data() ? "{\"name\":" : ",{\"name\":");
        body.write_string(view(server.name));
        body(",");
        write_counters(body, server.counts);
        body("}");
    }

    const std::int64_t newest = ngx_time() / history::slice_seconds;
    body("],\"history\":{\"interval\":", history::slice_seconds, ",\"end\":", (newest + 1) * history::slice_seconds,
         ",");
    write_history(body, "requests", *figures.last, newest, &history::slice::requests);
    body(",");
    write_history(body, "dry_run", *figures.last, newest, &history::slice::dry_run);
    body(",\"fail_open\":");
    write_series(body, *figures.last, newest, [](const history::slice &slice) { return slice.fail_open; });

    const usage_figures &usage = figures.usage;
    body("},\"tokens\":{\"known\":", usage.known, ",\"capacity\":", usage.capacity, ",\"evicted\":", usage.evicted,
         ",\"lost_uses\":", usage.lost_uses, ",\"cursor\":", usage.cursor, ",\"top\":[");
    for (const token_use &token : figures.most_used) {
        body(&token == figures.most_used.data() ? "{\"id\":" : ",{\"id\":");
        body.write_string(token.id);
        body(",\"uses\":", token.count, ",\"last_at\":", token.used_at, ",\"last_from\":\"");
        body.write_address(token.peer);
        body("\"}");
    }
    body("]},");
}

void write_store(reply &body, const store_figures &store) noexcept
{
    body("{\"path\":");
    body.write_string(store.path);
    body(",\"open\":", store.problem ? "false" : "true", ",\"problem\":");

    if (store.problem) {
        body.write_string(store::fault_text{store.problem}.text());
        body("}");
        return;
    }

    const store::condition &now = store.now;
    body("\"\",\"state\":\"", name(now.state), "\",");
    if (now.heartbeat == 0) {
        body("\"heartbeat\":null,\"age\":null");
    } else {
        body("\"heartbeat\":", now.heartbeat, ",\"age\":", ngx_time() - now.heartbeat);
    }
    body(",\"transaction\":", now.commit, ",\"tokens\":", now.tokens, ",\"revoked\":", now.revoked,
         ",\"readers\":", now.readers, ",\"max_readers\":", now.max_readers, ",\"used_bytes\":", now.used_bytes,
         ",\"map_bytes\":", now.map_size, "}");
}

}  // namespace

void write_json(reply &body, const status_figures &figures) noexcept
{
    body("{\"time\":", ngx_time(), ",\"version\":\"", release, "\",\"nginx\":\"" NGINX_VERSION "\",\"zone\":");
    if (figures.zone == nullptr) {
        body("null,");
    } else {
        write_zone(body, *figures.zone, figures.counted);
    }

    body("\"stores\":[");
    for (const store_figures &store : figures.stores) {
        body(&store == figures.stores.data() ? "" : ",");
        write_store(body, store);
    }
    body("]}\n");
}

}  // namespace pat::ngx
