#pragma once

#include "nginx/pat_ngx.h"

/// The variables `$auth_pat_…`.
namespace pat::ngx {

ngx_int_t add_variables(ngx_conf_t *cf) noexcept;

/// Makes nginx forget the values of our variables that it has kept for this request, because the decision behind them
/// is about to change.
void forget_variables(ngx_http_request_t *r) noexcept;

}  // namespace pat::ngx
