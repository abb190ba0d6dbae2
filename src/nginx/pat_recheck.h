#pragma once

#include "nginx/pat_ngx.h"

/// `auth_pat_recheck`: checks the tokens of long-running requests again.
///
/// All requests with the same interval share one timer and one queue, ordered by due time, so a short request costs
/// only a link in a list. A queue belongs to one process; its timer does not keep a worker from exiting.
namespace pat::ngx {

struct access_decision;
struct main_conf;

struct recheck_queue {
    ngx_msec_t interval;
    ngx_queue_t requests;  ///< of recheck_link
    ngx_event_t timer;
};

/// Links a request into a queue; part of its decision.
struct recheck_link {
    ngx_queue_t node;
    ngx_msec_t due;
    recheck_queue *queue;  ///< nullptr: in none
    ngx_http_request_t *request;
    access_decision *decision;
};

/// The queue for an interval; nullptr if out of memory.
[[nodiscard]] recheck_queue *find_or_add_queue(ngx_conf_t *cf, main_conf &mcf, ngx_msec_t interval) noexcept;

/// Has the request rechecked at the queue's interval until it leaves.
void enter(recheck_queue &queue, ngx_http_request_t *r, access_decision &decision) noexcept;
void leave(recheck_link &link) noexcept;

}  // namespace pat::ngx
