#include "nginx/pat_access.h"

#include "nginx/pat_challenge.h"
#include "nginx/pat_variables.h"
#include "nginx/pat_zone.h"

#include <optional>

namespace pat::ngx {

namespace {

/// The part of a decision that is counted.
struct countable {
    access_verdict verdict;
    bool let_in;
    bool is_dry_refusal;
    const store_conf *used_store;  ///< nullptr: no token was used
    std::string_view used_id;

    bool operator==(const countable &) const noexcept = default;
};

[[nodiscard]] countable describe(const access_decision &decision) noexcept
{
    const bool is_use = decision.let_in && decision.has_record;
    return {decision.verdict, decision.let_in, decision.lcf->dry_run != 0 && !decision.let_in,
            is_use ? decision.lcf->store : nullptr, is_use ? decision.token.id : std::string_view{}};
}

/// Counts a decision. If the request comes to the access phase again, through an index or an error page, counts only a
/// change.
void count(ngx_http_request_t *r, const access_decision &decision, const std::optional<countable> &before,
           counters &counts) noexcept
{
    const countable now = describe(decision);
    if (before == now) {
        return;
    }
    if (now.is_dry_refusal) {
        counts.dry_run[index_of(now.verdict)]++;
        return;
    }

    counts.requests[index_of(now.verdict)]++;
    if (decision.let_in && decision.fails_open) {
        counts.fail_open++;
    }
    if (now.used_store != nullptr) {
        count_use(r, *now.used_store, now.used_id, decision.request.peer);
    }
}

/// Lets a request in.
[[nodiscard]] ngx_int_t admit(ngx_http_request_t *r, access_decision &decision) noexcept
{
    const loc_conf &lcf = *decision.lcf;

    take_back_headers(decision);

    if (decision.fails_open) {
        ngx_log_error(NGX_LOG_CRIT, r->connection->log, 0,
                      "auth_pat_fail_open lets in a request whose token could not be validated");
    }

    const bool has_token =
        decision.verdict != access_verdict::anonymous && decision.verdict != access_verdict::preflight;
    if (lcf.recheck != nullptr && has_token && lcf.dry_run == 0) {
        enter(*lcf.recheck, r, decision);
    }

    // With `satisfy any`, NGX_OK would settle it. Without a token, other modules must decide; a dry run must not decide
    // at all.
    return lcf.dry_run != 0 || decision.verdict == access_verdict::anonymous ? NGX_DECLINED : NGX_OK;
}

/// Counts a decision, and lets the request in or refuses it, which takes a realm. Inlined, as every request passes
/// here.
[[nodiscard, gnu::always_inline]] inline ngx_int_t conclude(ngx_http_request_t *r, access_decision &decision,
                                                            const std::optional<countable> &before,
                                                            const ngx_str_t *realm) noexcept
{
    leave(decision.link);
    if (counters *counts = is_unread(r) ? nullptr : counters_of(r)) {
        count(r, decision, before, *counts);
    }

    if (decision.let_in) {
        return admit(r, decision);
    }
    if (decision.lcf->dry_run != 0) {
        log_refusal(r, decision, ", dry run");
        take_back_headers(decision);
        return NGX_DECLINED;
    }
    return realm != nullptr ? refuse(r, decision, view(*realm)) : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

/// Does the same for a decision that changed after the access phase, whose other modules are not asked again.
[[nodiscard]] ngx_int_t conclude_again(ngx_http_request_t *r, access_decision &decision,
                                       const countable &before) noexcept
{
    forget_variables(r);

    ngx_str_t realm;
    const bool has_realm = ngx_http_complex_value(r, decision.lcf->realm, &realm) == NGX_OK;
    const ngx_int_t status = conclude(r, decision, before, has_realm ? &realm : nullptr);
    return status == NGX_ERROR ? NGX_HTTP_INTERNAL_SERVER_ERROR : status;
}

/// Refuses CONNECT (nginx 1.31 and later). A tunnel carries more than one request, and its credentials are for a proxy
/// (Proxy-Authorization), so no token can authorize what goes through it.
[[nodiscard]] ngx_int_t refuse_tunnel(ngx_http_request_t *r, const loc_conf &lcf) noexcept
{
    ngx_str_t realm;
    if (ngx_http_complex_value(r, lcf.realm, &realm) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (turns_off(lcf, realm)) {
        return NGX_DECLINED;
    }
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "\"auth_pat\" refuses CONNECT%s",
                  lcf.dry_run != 0 ? ", dry run" : "");
    return lcf.dry_run != 0 ? NGX_DECLINED : NGX_HTTP_NOT_ALLOWED;
}

/// Whether a limit has counted the request, possibly by a variable of ours.
[[nodiscard]] bool was_limited(const ngx_http_request_t *r) noexcept
{
    return r->limit_req_status != 0 || r->limit_conn_status != 0;
}

}  // namespace

ngx_int_t handle_post_read(ngx_http_request_t *r) noexcept
{
    set_progress(r, progress::read);
    return NGX_DECLINED;
}

ngx_int_t handle_access(ngx_http_request_t *r) noexcept
{
    const loc_conf &lcf = loc_conf_of(r);

    if (lcf.realm == nullptr) {
        return NGX_DECLINED;
    }

    if (r->method == NGX_HTTP_CONNECT) {
        return refuse_tunnel(r, lcf);
    }

    // Do not reuse a decision that was made for a variable before this phase: the token, the address or the required
    // scopes may have changed since, or the token may have been revoked while limit_req delayed the request.
    access_decision *decision = find_decision(r);
    std::optional<countable> before;
    if (decision != nullptr) {
        if (decision->state.is_enforced()) {
            before = describe(*decision);
        }
        forget_variables(r);
    } else if ((decision = add_decision(r)) == nullptr) {
        return NGX_ERROR;
    }

    ngx_str_t realm;
    const bool is_made = make_decision(r, lcf, true, realm, *decision);
    if (is_unread(r)) {
        forget_variables(r);  // the decision is about the error page, not about the request
    }
    if (is_made && turns_off(lcf, realm)) {
        return NGX_DECLINED;
    }

    return conclude(r, *decision, before, is_made ? &realm : nullptr);
}

ngx_int_t decide_again(ngx_http_request_t *r, access_decision &decision) noexcept
{
    const countable before = describe(decision);

    renew_decision(r, decision);
    return conclude_again(r, decision, before);
}

ngx_int_t recheck_or_refuse(ngx_http_request_t *r, access_decision &decision) noexcept
{
    const countable before = describe(decision);

    decision.decided_at = ngx_current_msec;
    return recheck(r, decision) ? NGX_OK : conclude_again(r, decision, before);
}

ngx_int_t handle_log(ngx_http_request_t *r) noexcept
{
    if (r != r->main || loc_conf_of(r).realm == nullptr) {
        return NGX_OK;
    }

    const access_decision *decision = find_decision(r);
    if (decision != nullptr) {
        const bool is_past = decision->state.is_enforced() || progress_of(r) == progress::past_access;
        if (is_past || (decision->was_asked_early && was_limited(r))) {
            return NGX_OK;
        }
        forget_variables(r);
    }
    set_progress(r, progress::answered);
    return NGX_OK;
}

void close_request(ngx_http_request_t *r, const access_decision &decision, bool is_news) noexcept
{
    ngx_connection_t *connection = r->connection;

    if (is_news) {
        if (counters *counts = counters_of(r)) {
            counts->closed[index_of(decision.verdict)]++;
        }
        log_refusal(r, decision, ", closing its request");
    }

#if (NGX_HTTP_V2 || NGX_COMPAT)
    if (r->stream != nullptr) {
        // nginx would leave the end of the stream queued as long as other streams are active.
        ngx_post_event(r->stream->connection->connection->write, &ngx_posted_events);
    }
#endif

    // As `return 444` does: end the connection or stream at once, and log the status that was sent, or 444. The
    // reference keeps cleanups, such as closing an upstream connection, from ending the request first
    // (ngx_http_request_handler() does the same).
    r->main->count++;
    ngx_http_finalize_request(r, NGX_HTTP_CLOSE);
    ngx_http_run_posted_requests(connection);
}

}  // namespace pat::ngx
