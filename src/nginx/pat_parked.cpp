#include "nginx/pat_parked.h"

#include "nginx/pat_access.h"

namespace pat::ngx {

namespace {

/// How often the token of an unbuffered upload, whose upstream has what has come so far, is looked at.
constexpr ngx_msec_t unbuffered_interval = 1000;

ngx_http_request_body_filter_pt next_filter;

/// How long ago a decision was made that may be another one by now; 0 if there is none, or it is new. Time stands still
/// while nginx handles what has come together.
[[nodiscard]] ngx_msec_t age_of(const decision &made) noexcept
{
    const ngx_msec_t age = ngx_current_msec - made.at;
    const bool is_of_token = made.outcome != verdict::anonymous && made.outcome != verdict::preflight;
    return age != 0 && made.enforced && made.let_in && is_of_token ? age : 0;
}

/// Looks again at a request of which a part of the body has come. A status if it is refused.
[[nodiscard]] ngx_int_t look_again(ngx_http_request_t *r) noexcept
{
    decision *made = find_decision(r);
    const ngx_msec_t age = made != nullptr ? age_of(*made) : 0;
    if (age == 0) {
        return NGX_OK;
    }
    if (r->request_body->last_saved) {
        return decide_again(r, *made);
    }
    return r->request_body_no_buffering && age >= unbuffered_interval ? recheck_or_refuse(r, *made) : NGX_OK;
}

ngx_int_t filter_body(ngx_http_request_t *r, ngx_chain_t *in) noexcept
{
    // First of all the body is saved, as an error page may be one that reads it.
    if (const ngx_int_t code = next_filter(r, in); code != NGX_OK || in == nullptr) {
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
    return status;
}

}  // namespace

ngx_int_t handle_precontent(ngx_http_request_t *r) noexcept
{
    auto *made = static_cast<decision *>(ngx_http_get_module_ctx(r, ngx_http_auth_pat_module));

    // What another location demanded counts no more, and what it told, the answer of an error page still does.
    if (made == nullptr || made->conf != ngx_http_get_module_loc_conf(r, ngx_http_auth_pat_module)) {
        return NGX_DECLINED;
    }

    // With `satisfy any`, another module has let the request in. nginx takes a challenge back by itself, but only what
    // r->headers_out.www_authenticate points at, which auth_basic may have put in the place of ours.
    if (made->challenge != nullptr) {
        made->challenge->hash = 0;
    }

    if (age_of(*made) == 0) {
        return NGX_DECLINED;
    }
    const ngx_int_t status = decide_again(r, *made);
    return status >= NGX_HTTP_SPECIAL_RESPONSE ? status : NGX_DECLINED;
}

void add_body_filter() noexcept
{
    next_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = filter_body;
}

}  // namespace pat::ngx
