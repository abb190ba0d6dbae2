#include "nginx/pat_recheck.h"

#include "nginx/pat_access.h"
#include "nginx/pat_conf.h"

namespace pat::ngx {

namespace {

/// Small enough that other events wait less than a millisecond when thousands of requests are due.
constexpr ngx_uint_t at_a_time = 256;

void start_timer(recheck_queue &queue) noexcept
{
    if (ngx_queue_empty(&queue.requests) || queue.timer.timer_set) {
        return;
    }

    const auto *next = ngx_queue_data(ngx_queue_head(&queue.requests), recheck_link, node);
    const auto wait = static_cast<ngx_msec_int_t>(next->due - ngx_current_msec);
    ngx_add_timer(&queue.timer, wait > 0 ? static_cast<ngx_msec_t>(wait) : 1);
}

void append(recheck_queue &queue, recheck_link &link) noexcept
{
    link.queue = &queue;
    link.due = ngx_current_msec + queue.interval;
    ngx_queue_insert_tail(&queue.requests, &link.node);
}

void check_due(ngx_event_t *timer) noexcept
{
    recheck_queue &queue = *ngx_queue_data(timer, recheck_queue, timer);

    for (ngx_uint_t i = 0; i < at_a_time && !ngx_queue_empty(&queue.requests); i++) {
        auto *link = ngx_queue_data(ngx_queue_head(&queue.requests), recheck_link, node);
        if (static_cast<ngx_msec_int_t>(link->due - ngx_current_msec) > 0) {
            break;
        }

        leave(*link);

        ngx_http_request_t *r = link->request;
        if (r->done) {
            continue;  // the response has been sent; nginx only finishes the connection
        }

        append(queue, *link);  // end_decision() removes it
        if (const bool was_let_in = link->decision->let_in; !recheck(r, *link->decision)) {
            close_request(r, *link->decision, was_let_in);
        }
    }

    start_timer(queue);
}

/// Runs when the cycle's pool is destroyed, after the last request of the cycle.
void stop_timer(void *data) noexcept
{
    auto *timer = static_cast<ngx_event_t *>(data);
    if (timer->timer_set) {
        ngx_del_timer(timer);
    }
}

}  // namespace

recheck_queue *find_or_add_queue(ngx_conf_t *cf, main_conf &mcf, ngx_msec_t interval) noexcept
{
    for (recheck_queue *known : items<recheck_queue *>(mcf.rechecks)) {
        if (known->interval == interval) {
            return known;
        }
    }

    auto *added = allocate<recheck_queue>(cf->pool);
    auto **entry = push<recheck_queue *>(mcf.rechecks);
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(cf->pool, 0);
    if (added == nullptr || entry == nullptr || cleanup == nullptr) {
        return nullptr;
    }
    cleanup->handler = stop_timer;
    cleanup->data = &added->timer;

    *added = {};
    added->interval = interval;
    ngx_queue_init(&added->requests);
    prepare_timer(added->timer, check_due, &cf->cycle->new_log);
    *entry = added;
    return added;
}

void enter(recheck_queue &queue, ngx_http_request_t *r, access_decision &decision) noexcept
{
    decision.link.request = r;
    decision.link.decision = &decision;
    append(queue, decision.link);
    start_timer(queue);
}

void leave(recheck_link &link) noexcept
{
    if (link.queue != nullptr) {
        ngx_queue_remove(&link.node);
        link.queue = nullptr;
    }
}

}  // namespace pat::ngx
