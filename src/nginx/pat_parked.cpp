#include "nginx/pat_parked.h"

#include "nginx/pat_access.h"
#include "nginx/pat_variables.h"

namespace pat::ngx {

namespace {

/// How often the token of an unbuffered upload, whose upstream has what has come so far, is looked at.
constexpr ngx_msec_t unbuffered_interval = 1000;

ngx_http_request_body_filter_pt next_filter;

/// Whether a decision may be another one by now.
[[nodiscard]] bool may_change(const access_decision &decision) noexcept
{
    const bool is_of_token =
        decision.verdict != access_verdict::anonymous && decision.verdict != access_verdict::preflight;
    return decision.state.is_enforced() && decision.let_in && is_of_token;
}

/// Time stands still while nginx handles what has come together.
[[nodiscard]] ngx_msec_t age_of(const access_decision &decision) noexcept
{
    return ngx_current_msec - decision.decided_at;
}

/// Looks again at a request of which a part of the body has come. A status if it is refused.
[[nodiscard]] ngx_int_t look_again(ngx_http_request_t *r) noexcept
{
    access_decision *decision = find_decision(r);
    if (decision == nullptr || !may_change(*decision)) {
        return NGX_OK;
    }
    if (r->request_body->last_saved) {
        // With timer_resolution, time stands still for longer than that.
        return decision->state.is_parked() || age_of(*decision) != 0 ? decide_again(r, *decision) : NGX_OK;
    }
    decision->state.park();
    const bool is_due = r->request_body_no_buffering && age_of(*decision) >= unbuffered_interval;
    return is_due ? recheck_or_refuse(r, *decision) : NGX_OK;
}

/// Of an unbuffered upload nothing is kept but what the upstream has not got yet, while the length is that of the
/// whole. The upstream of an error page would take the next request for the rest. It gets no body.
void drop_body(ngx_http_request_t *r) noexcept
{
    r->request_body->bufs = nullptr;
    r->headers_in.content_length = nullptr;
    r->headers_in.content_length_n = 0;
    r->headers_in.transfer_encoding = nullptr;
    r->headers_in.chunked = 0;

    // What may still come is thrown away.
    r->reading_body = 1;
#if (NGX_HTTP_V2 || NGX_COMPAT)
    if (r->stream != nullptr) {
        r->stream->skip_data = 1;
    }
#endif
}

ngx_int_t filter_body(ngx_http_request_t *r, ngx_chain_t *in) noexcept
{
    // First of all the body is saved, as an error page may be one that reads it.
    if (const ngx_int_t code = next_filter(r, in); code != NGX_OK) {
        return code;
    }

    const ngx_int_t status = look_again(r);
    if (status < NGX_HTTP_SPECIAL_RESPONSE) {
        return NGX_OK;
    }

    // Else nginx would go on with the body, which is complete, when the client sends something more. Of that, a part
    // may stand behind the body in its buffer, where the next request of the connection would not find it.
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

    // With `satisfy any`, another module has let the request in. nginx takes a challenge back by itself, but only what
    // r->headers_out.www_authenticate points at, which auth_basic may have put in the place of ours. What was told
    // before, in another location or for another page, the answer of an error page still tells.
    const bool is_of_here = decision->conf == &loc_conf_of(r);
    if (decision->state.is_challenged() && is_of_here) {
        decision->challenge->hash = 0;
    }

    // A token that was enforced counts wherever a redirect has led.
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
