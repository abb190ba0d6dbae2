#pragma once

#include "nginx/pat_reply.h"
#include "nginx/pat_zone.h"
#include "store/pat_reader.h"

#include <span>
#include <string_view>

/// The figures of `auth_pat_status`, and the three formats that present them.
namespace pat::ngx {

/// A store and its current condition.
struct store_figures {
    std::string_view path;
    store::fault problem;
    store::condition now;
};

struct status_figures {
    const zone_conf *zone;  ///< nullptr: none, so only the stores are known
    zone_figures counted;
    std::span<store_figures> stores;
};

/// Writes the JSON document that docs/directives.md describes under "auth_pat_status".
void write_json(reply &body, const status_figures &figures) noexcept;

/// Writes the Prometheus text exposition format, version 0.0.4.
void write_prometheus(reply &body, const status_figures &figures) noexcept;

/// Writes a page that shows the JSON document and refreshes it, with headers that keep it from loading anything else.
void write_page(reply &answer, ngx_pool_t *pool, const status_figures &figures) noexcept;

}  // namespace pat::ngx
