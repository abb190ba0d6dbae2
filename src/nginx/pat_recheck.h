#pragma once

#include "nginx/pat_ngx.h"

/// `auth_pat_recheck`: looking at the tokens of requests that go on for long.
///
/// All requests with the same interval stand in one queue, the one that is due next in front, with one timer for them
/// all: a request that is short costs a link in a list. A queue is of one process; its timer doesn't keep a worker from
/// exiting.
namespace pat::ngx {

struct access_decision;
struct main_conf;

struct recheck_queue {
    ngx_msec_t interval;
    ngx_queue_t requests;  ///< of recheck_link
    ngx_event_t timer;
};

/// Links a request into a queue; part of the decision that is checked.
struct recheck_link {
    ngx_queue_t node;
    ngx_msec_t due;
    recheck_queue *queue;  ///< nullptr: in none
    ngx_http_request_t *request;
    access_decision *decision;
};

/// The queue for an interval; nullptr if there is no memory.
[[nodiscard]] recheck_queue *find_or_add_queue(ngx_conf_t *cf, main_conf &main, ngx_msec_t interval) noexcept;

/// Has the request checked after each interval of its queue, until it leaves.
void enter(recheck_queue &queue, ngx_http_request_t *r, access_decision &decision) noexcept;
void leave(recheck_link &link) noexcept;

}  // namespace pat::ngx
