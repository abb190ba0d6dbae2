#include "nginx/pat_parked.h"

#include "nginx/pat_access.h"
#include "nginx/pat_challenge.h"
#include "nginx/pat_variables.h"

namespace pat::ngx {

namespace {

/// How often to recheck the token of an unbuffered upload, which the upstream receives as it arrives.
constexpr ngx_msec_t unbuffered_interval = 1000;

ngx_http_request_body_filter_pt next_filter;

/// Whether a decision may have changed by now.
[[nodiscard]] bool may_change(const access_decision &decision) noexcept
{
    const bool is_of_token =
        decision.verdict != access_verdict::anonymous && decision.verdict != access_verdict::preflight;
    return decision.state.is_enforced() && decision.let_in && is_of_token;
}

/// Milliseconds since the decision was made; 0 within one iteration of the event loop, where nginx's time stands still.
[[nodiscard]] ngx_msec_t age_of(const access_decision &decision) noexcept
{
    return ngx_current_msec - decision.decided_at;
}

/// Decides again when a part of the body has arrived. Returns a status if the request is refused.
[[nodiscard]] ngx_int_t look_again(ngx_http_request_t *r) noexcept
{
    access_decision *decision = find_decision(r);
    if (decision == nullptr || !may_change(*decision)) {
        return NGX_OK;
    }
    if (r->request_body->last_saved) {
        // With timer_resolution, nginx's time may stand still even while the request waits.
        return decision->state.is_parked() || age_of(*decision) != 0 ? decide_again(r, *decision) : NGX_OK;
    }
    decision->state.park();
    const bool is_due = r->request_body_no_buffering && age_of(*decision) >= unbuffered_interval;
    return is_due ? recheck_or_refuse(r, *decision) : NGX_OK;
}

/// Drops the body of an unbuffered upload for the error page. Only the part that the upstream has not received is left,
/// but the length is that of the whole: the upstream of the error page would take the next request for the rest.
void drop_body(ngx_http_request_t *r) noexcept
{
    r->request_body->bufs = nullptr;
    r->headers_in.content_length = nullptr;
    r->headers_in.content_length_n = 0;
    r->headers_in.transfer_encoding = nullptr;
    r->headers_in.chunked = 0;

    // Discard what still arrives.
    r->reading_body = 1;
#if (NGX_HTTP_V2 || NGX_COMPAT)
    if (r->stream != nullptr) {
        r->stream->skip_data = 1;
    }
#endif
}

ngx_int_t filter_body(ngx_http_request_t *r, ngx_chain_t *in) noexcept
{
    // Save the body first, as an error page may read it.
    if (const ngx_int_t code = next_filter(r, in); code != NGX_OK) {
        return code;
    }

    const ngx_int_t status = look_again(r);
    if (status < NGX_HTTP_SPECIAL_RESPONSE) {
        return NGX_OK;
    }

    // Otherwise nginx would continue with the complete body when the client sends more. Part of that may already be
    // behind the body in its buffer, where the connection's next request would not find it.
    r->read_event_handler = ngx_http_block_reading;
    r->keepalive = 0;
    if (r->request_body_no_buffering) {
        drop_body(r);
    }
    return status;
}

}  // namespace

ngx_int_t handle_precontent(ngx_http_request_t *r) noexcept
{
    if (r != r->main) {
        return NGX_DECLINED;
    }
    if (!is_unread(r)) {
        set_progress(r, progress::past_access);
    }

    access_decision *decision = find_decision(r);
    if (decision == nullptr) {
        return NGX_DECLINED;
    }

    // With `satisfy any`, another module has let the request in. nginx removes only the challenge that
    // r->headers_out.www_authenticate points at, which may be that of auth_basic. Keep the challenges of another
    // location: an error page still carries it.
    const bool is_of_here = decision->lcf == &loc_conf_of(r);
    if (decision->state.is_challenged() && is_of_here) {
        take_back_challenges(*decision);
    }

    // An enforced decision is valid wherever a redirect has led.
    if (!may_change(*decision) || age_of(*decision) == 0) {
        return NGX_DECLINED;
    }
    const ngx_int_t status = decide_again(r, *decision);
    return status >= NGX_HTTP_SPECIAL_RESPONSE ? status : NGX_DECLINED;
}

void add_body_filter() noexcept
{
    next_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = filter_body;
}

}  // namespace pat::ngx
