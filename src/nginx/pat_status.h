#pragma once

#include "nginx/pat_ngx.h"

/// The content handlers of `auth_pat_status` and `auth_pat_usage`. docs/directives.md describes what they answer.
namespace pat::ngx {

ngx_int_t handle_status(ngx_http_request_t *r) noexcept;
ngx_int_t handle_usage(ngx_http_request_t *r) noexcept;

}  // namespace pat::ngx
