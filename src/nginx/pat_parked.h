#pragma once

#include "nginx/pat_ngx.h"

/// Requests that wait between the access phase and the upstream: for the rest of their body, or for another module of
/// the access phase, like auth_request. The early decision stays, which refuses a dead token before its upload. Where
/// time has passed since, a second one is made before the upstream has anything.
namespace pat::ngx {

/// A handler of the precontent phase.
ngx_int_t handle_precontent(ngx_http_request_t *r) noexcept;

/// Puts the filter of request bodies in front of those that are there.
void add_body_filter() noexcept;

}  // namespace pat::ngx
