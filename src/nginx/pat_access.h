#pragma once

#include "nginx/pat_decision.h"

/// Acts on a decision: lets the request in, refuses or closes it, and counts it.
namespace pat::ngx {

/// Handles the post-read phase, which internal redirects do not run again.
ngx_int_t handle_post_read(ngx_http_request_t *r) noexcept;

/// Handles the access phase.
ngx_int_t handle_access(ngx_http_request_t *r) noexcept;

/// Handles the log phase. Must run before the handlers that write logs, so that no variable in a log decides about a
/// request that was not decided until then.
ngx_int_t handle_log(ngx_http_request_t *r) noexcept;

/// Decides again about a request that was let in for its token and has waited since. If it is refused now, returns the
/// status that the access phase would have returned.
[[nodiscard]] ngx_int_t decide_again(ngx_http_request_t *r, access_decision &decision) noexcept;

/// Does the same for a request that is rechecked many times. Only a refusal changes the verdict.
[[nodiscard]] ngx_int_t recheck_or_refuse(ngx_http_request_t *r, access_decision &decision) noexcept;

/// Closes a running request that the decision refuses now. nginx may postpone it while it waits for a file or for the
/// lock of a cache entry (r->blocked). `is_news` is true on the first attempt, which counts and logs it.
void close_request(ngx_http_request_t *r, const access_decision &decision, bool is_news) noexcept;

}  // namespace pat::ngx
