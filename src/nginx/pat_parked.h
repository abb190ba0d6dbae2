#pragma once

#include "nginx/pat_ngx.h"

/// Requests that wait between the access phase and the upstream, for the rest of their body or for another module of
/// the access phase, such as auth_request. The first decision refuses an invalid token before the upload. If time has
/// passed since, a second one is made before the upstream gets anything.
namespace pat::ngx {

/// Handles the precontent phase.
ngx_int_t handle_precontent(ngx_http_request_t *r) noexcept;

/// Adds a request body filter in front of the existing ones.
void add_body_filter() noexcept;

}  // namespace pat::ngx
