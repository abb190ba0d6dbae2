#pragma once

#include "nginx/pat_decision.h"

/// What follows from a decision: a request is let in, refused or closed, and counted.
namespace pat::ngx {

/// A handler of the first phase, which no internal redirect comes to again.
ngx_int_t handle_post_read(ngx_http_request_t *r) noexcept;

/// The handler of the access phase.
ngx_int_t handle_access(ngx_http_request_t *r) noexcept;

/// A handler of the log phase, to be called before those that write logs: what was not decided by then is not decided
/// for a log.
ngx_int_t handle_log(ngx_http_request_t *r) noexcept;

/// Decides again about a request that was let in for its token, since it has waited. A status if it is refused after
/// all, which is what the access phase would have answered.
[[nodiscard]] ngx_int_t decide_again(ngx_http_request_t *r, access_decision &decision) noexcept;

/// The same for a request that is to be looked at many times. Nothing but a refusal changes the decision.
[[nodiscard]] ngx_int_t recheck_or_refuse(ngx_http_request_t *r, access_decision &decision) noexcept;

/// Closes a request that is under way, because of what the decision says now. It may take until later, while nginx
/// waits for a file or for the lock of a cache entry (r->blocked); `is_news` is false if that was told before.
void close_request(ngx_http_request_t *r, const access_decision &decision, bool is_news) noexcept;

}  // namespace pat::ngx
