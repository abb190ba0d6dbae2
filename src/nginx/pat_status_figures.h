#pragma once

#include "nginx/pat_reply.h"
#include "nginx/pat_zone.h"
#include "store/pat_reader.h"

#include <span>
#include <string_view>

/// What `auth_pat_status` tells, and the three ways it is told.
namespace pat::ngx {

/// A store and its condition at this moment.
struct store_figures {
    std::string_view path;
    store::fault problem;
    store::condition now;
};

struct status_figures {
    const zone_conf *zone;  ///< nullptr: there is none, and only the stores are known
    zone_figures counted;
    std::span<store_figures> stores;
};

/// docs/directives.md, "auth_pat_status", names the members.
void write_json(reply &body, const status_figures &figures) noexcept;

/// Prometheus text exposition format, version 0.0.4.
void write_prometheus(reply &body, const status_figures &figures) noexcept;

/// A page that shows the JSON document and refreshes it, with the headers that keep it from loading anything else.
void write_page(reply &answer, ngx_pool_t *pool, const status_figures &figures) noexcept;

}  // namespace pat::ngx
