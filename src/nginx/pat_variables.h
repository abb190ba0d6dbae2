#pragma once

#include "nginx/pat_conf.h"
#include "nginx/pat_ngx.h"

/// The variables `$auth_pat_…`.
namespace pat::ngx {

ngx_int_t add_variables(ngx_conf_t *cf) noexcept;

/// Invalidates the cached values of our variables for this request, because the decision behind them is about to
/// change.
void forget_variables(ngx_http_request_t *r) noexcept;

/// How far nginx has come with a request. Kept among the variables, which an internal redirect does not clear.
enum class progress : unsigned {
    unread,  ///< nginx could not parse it, if this is after the post-read phase
    read,
    past_access,
    answered,  ///< without the access phase; is being logged
};

[[nodiscard]] inline ngx_http_variable_value_t &progress_slot(ngx_http_request_t *r) noexcept
{
    return r->variables[main_conf_of(r).progress];
}

[[nodiscard]] inline progress progress_of(ngx_http_request_t *r) noexcept
{
    return static_cast<progress>(static_cast<unsigned>(progress_slot(r).len));
}

inline void set_progress(ngx_http_request_t *r, progress reached) noexcept
{
    progress_slot(r).len = static_cast<unsigned>(reached);
}

/// Whether nginx could not parse the request, and refused it before any phase. Its error page may run through the
/// phases.
[[nodiscard]] inline bool is_unread(ngx_http_request_t *r) noexcept
{
    return progress_of(r) == progress::unread;
}

/// Whether nginx answers the request without the access phase, so that no decision is made or told.
[[nodiscard]] inline bool has_no_decision(ngx_http_request_t *r) noexcept
{
    return is_unread(r) || progress_of(r) == progress::answered;
}

}  // namespace pat::ngx
