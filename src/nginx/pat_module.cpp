#include "nginx/pat_access.h"
#include "nginx/pat_conf.h"
#include "nginx/pat_directives.h"
#include "nginx/pat_parked.h"
#include "nginx/pat_stores.h"
#include "nginx/pat_variables.h"
#include "nginx/pat_zone.h"

#include <algorithm>

/// The module's definition, and its life cycle from configuration to the end of a worker.
namespace pat::ngx {

namespace {

/// Whether the zone, which knows stores by their paths, has room for the paths.
[[nodiscard]] bool are_short_enough(ngx_conf_t *cf, const ngx_array_t &stores) noexcept
{
    const auto confs = items<store_conf *>(stores);
    const auto too_long =
        std::ranges::find_if(confs, [](auto *store) { return store->path.len > max_zone_name_length; });
    if (too_long == confs.end()) {
        return true;
    }
    const store_conf &store = **too_long;
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "auth_pat store \"%V\" in %V:%ui: with auth_pat_zone, a path may have at most %uz characters",
                  &store.path, &store.location.file, store.location.line, max_zone_name_length);
    return false;
}

ngx_int_t preconfiguration(ngx_conf_t *cf) noexcept
{
    return add_variables(cf);
}

ngx_int_t postconfiguration(ngx_conf_t *cf) noexcept
{
    auto *cmcf = static_cast<ngx_http_core_main_conf_t *>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));

    const auto add_handler = [&](ngx_http_phases phase, ngx_http_handler_pt handler) {
        auto *added = push<ngx_http_handler_pt>(cmcf->phases[phase].handlers);
        if (added != nullptr) {
            *added = handler;
        }
        return added;
    };

    auto *log = add_handler(NGX_HTTP_LOG_PHASE, handle_log);
    if (log == nullptr || add_handler(NGX_HTTP_POST_READ_PHASE, handle_post_read) == nullptr
        || add_handler(NGX_HTTP_ACCESS_PHASE, handle_access) == nullptr
        || add_handler(NGX_HTTP_PRECONTENT_PHASE, handle_precontent) == nullptr) {
        return NGX_ERROR;
    }
    // nginx runs the handlers of this phase in order, and those of other phases in reverse.
    std::rotate(items<ngx_http_handler_pt>(cmcf->phases[NGX_HTTP_LOG_PHASE].handlers).data(), log, log + 1);
    add_body_filter();

    const main_conf &mcf = main_conf_of(cf);
    if (mcf.zone != nullptr && !are_short_enough(cf, mcf.stores)) {
        return NGX_ERROR;
    }
    if (mcf.zone != nullptr && number_servers(cf, *mcf.zone) != NGX_OK) {
        return NGX_ERROR;
    }
    return NGX_OK;
}

constexpr ngx_msec_t retry_interval = 1000;

ngx_event_t retry;

/// Attaches what is not attached yet; false if out of memory.
[[nodiscard]] bool attach_rest(ngx_cycle_t *cycle) noexcept
{
    const main_conf *mcf = main_conf_of(cycle);

    if (mcf == nullptr || mcf->zone == nullptr) {
        detach_zone();
    }
    if (mcf == nullptr) {
        return true;
    }
    const bool has_zone = mcf->zone == nullptr || attach_zone(cycle, *mcf->zone);
    return attach_stores(cycle, *mcf) && has_zone;
}

/// Never fails: nginx would not respawn the worker. If out of memory, tries again: until then, the stores are closed
/// and requests are refused.
void attach(ngx_cycle_t *cycle) noexcept
{
    if (!attach_rest(cycle)) {
        prepare_timer(
            retry, [](ngx_event_t *) { attach(const_cast<ngx_cycle_t *>(ngx_cycle)); }, cycle->log);
        ngx_add_timer(&retry, retry_interval);
    }
}

/// Runs in the master, where there is nothing to do, and on a reload with `master_process off`.
ngx_int_t init_module(ngx_cycle_t *cycle) noexcept
{
    if (is_serving()) {
        attach(cycle);
    }
    return NGX_OK;
}

ngx_int_t init_process(ngx_cycle_t *cycle) noexcept
{
    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) {
        return NGX_OK;  // the cache manager and the cache loader
    }

    begin_serving();
    attach(cycle);
    return NGX_OK;
}

void exit_process(ngx_cycle_t *) noexcept
{
    detach_zone();
}

ngx_http_module_t context = {
    preconfiguration, postconfiguration, create_main_conf,
    nullptr,  // init main configuration
    create_srv_conf,
    nullptr,  // merge server configuration
    create_loc_conf,  merge_loc_conf,
};

}  // namespace

}  // namespace pat::ngx

ngx_module_t ngx_http_auth_pat_module = {
    NGX_MODULE_V1,
    &pat::ngx::context,
    pat::ngx::directives,
    NGX_HTTP_MODULE,
    nullptr,  // init master
    pat::ngx::init_module,
    pat::ngx::init_process,
    nullptr,  // init thread
    nullptr,  // exit thread
    pat::ngx::exit_process,
    nullptr,  // exit master
    NGX_MODULE_V1_PADDING,
};
