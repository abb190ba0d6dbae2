#include "nginx/pat_challenge.h"

#include "core/pat_token.h"
#include "nginx/pat_reply.h"
#include "nginx/pat_stores.h"

#include <algorithm>
#include <span>

namespace pat::ngx {

namespace {

/// A store that cannot be read is retried every second, so a client need not wait longer.
constexpr std::string_view retry_after_seconds = "1";

/// Why a token is refused, as the end of a sentence that starts with the token.
[[nodiscard]] const char *reason(access_verdict verdict) noexcept
{
    switch (verdict) {
    case access_verdict::malformed: return "is malformed";
    case access_verdict::unknown: return "is unknown";
    case access_verdict::revoked: return "was revoked";
    case access_verdict::expired: return "expired";
    case access_verdict::not_yet_valid: return "is not yet valid";
    case access_verdict::address_denied: return "may not be used from this address";
    case access_verdict::scope_denied: return "lacks a scope";
    case access_verdict::require_denied: return "does not meet a requirement";
    case access_verdict::stale:
    case access_verdict::store_error: return "could not be validated";
    case access_verdict::ok:
    case access_verdict::missing:
    case access_verdict::preflight:
    case access_verdict::anonymous: break;
    }
    return nullptr;
}

/// What a refusal tells the client (RFC 6750, section 3), besides the realm.
struct refusal {
    ngx_int_t status;
    std::string_view parameters;
};

[[nodiscard]] refusal refusal_for(const access_decision &decision) noexcept
{
    switch (decision.verdict) {
    case access_verdict::ok:
    case access_verdict::stale:
    case access_verdict::store_error:
    case access_verdict::preflight:
    case access_verdict::anonymous: break;
    case access_verdict::missing: return {NGX_HTTP_UNAUTHORIZED, ""};
    case access_verdict::malformed:
    case access_verdict::unknown:
        return {NGX_HTTP_UNAUTHORIZED, ", error=\"invalid_token\", error_description=\"The access token is invalid\""};
    case access_verdict::revoked:
        return {NGX_HTTP_UNAUTHORIZED, ", error=\"invalid_token\", error_description=\"The access token was revoked\""};
    case access_verdict::expired:
        return {NGX_HTTP_UNAUTHORIZED, ", error=\"invalid_token\", error_description=\"The access token expired\""};
    case access_verdict::not_yet_valid:
        return {NGX_HTTP_UNAUTHORIZED,
                ", error=\"invalid_token\", error_description=\"The access token is not yet valid\""};
    case access_verdict::address_denied:
        return {NGX_HTTP_FORBIDDEN, ", error=\"invalid_token\", "
                                    "error_description=\"The access token may not be used from this address\""};
    case access_verdict::scope_denied: return {NGX_HTTP_FORBIDDEN, ", error=\"insufficient_scope\""};
    case access_verdict::require_denied:
        if (!decision.has_record) {
            return {decision.require_status, ""};
        }
        return {decision.require_status, decision.require_status == NGX_HTTP_UNAUTHORIZED
                                             ? ", error=\"invalid_token\", "
                                               "error_description=\"The access token does not meet a requirement\""
                                             : ", error=\"insufficient_scope\""};
    }
    return {NGX_HTTP_SERVICE_UNAVAILABLE, ""};
}

/// Writes the contents of a quoted-string (RFC 9110, section 5.6.4) to `p`, at most twice the length of `text`. A
/// control character, which could end the header, becomes a space.
u_char *write_quoted(u_char *p, std::string_view text) noexcept
{
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            *p++ = '\\';
        }
        const auto byte = static_cast<u_char>(c);
        *p++ = byte < 0x20 || byte == 0x7f ? ' ' : byte;
    }
    return p;
}

u_char *write(u_char *p, std::string_view text) noexcept
{
    return std::copy(text.begin(), text.end(), p);
}

/// Adds a challenge to the response; nullptr if out of memory. By `r->headers_out.www_authenticate`, nginx finds it and
/// removes it if `satisfy any` lets the request in after all.
[[nodiscard]] ngx_table_elt_t *push_challenge(ngx_http_request_t *r, ngx_str_t value) noexcept
{
    ngx_table_elt_t *header = push_header(r, "WWW-Authenticate", value);
    if (header != nullptr) {
#if (nginx_version >= 1023000)
        header->next = r->headers_out.www_authenticate;
#endif
        r->headers_out.www_authenticate = header;
    }
    return header;
}

/// Asks for a Bearer token (RFC 6750, section 3).
[[nodiscard]] ngx_table_elt_t *push_bearer(ngx_http_request_t *r, std::string_view realm, std::string_view parameters,
                                           std::span<const scope_requirement> required) noexcept
{
    constexpr std::string_view start = "Bearer realm=\"";
    constexpr std::string_view scope_start = ", scope=\"";

    std::size_t size = start.size() + 2 * realm.size() + 1 + parameters.size() + scope_start.size() + 1;
    for (const scope_requirement &requirement : required) {
        size += 2 * requirement.scopes.size() + 1;
    }

    auto *value = allocate<u_char>(r->pool, size);
    if (value == nullptr) {
        return nullptr;
    }

    u_char *p = write(value, start);
    p = write_quoted(p, realm);
    p = write(p, "\"");
    p = write(p, parameters);

    std::string_view separator = scope_start;
    for (const scope_requirement &requirement : required) {
        std::string_view rest = requirement.scopes;
        for (std::string_view scope = take_scope(rest); !scope.empty(); scope = take_scope(rest)) {
            p = write(p, separator);
            p = write_quoted(p, scope);
            separator = " ";
        }
    }
    if (separator != scope_start) {
        p = write(p, "\"");
    }
    return push_challenge(r, {static_cast<std::size_t>(p - value), value});
}

/// Asks for a user name and a password (RFC 7617, section 2), which has no place for a reason.
[[nodiscard]] ngx_table_elt_t *push_basic(ngx_http_request_t *r, std::string_view realm) noexcept
{
    constexpr std::string_view start = "Basic realm=\"";

    auto *value = allocate<u_char>(r->pool, start.size() + 2 * realm.size() + 1);
    if (value == nullptr) {
        return nullptr;
    }
    u_char *p = write(value, start);
    p = write_quoted(p, realm);
    p = write(p, "\"");
    return push_challenge(r, {static_cast<std::size_t>(p - value), value});
}

/// Challenges the client with each scheme that is accepted, but with Basic only if other credentials would help: a
/// browser asks its user for them. A 401 needs a challenge (RFC 9110, section 15.5.2), so Bearer also stands for what
/// has none: other headers and the scheme "token".
[[nodiscard]] ngx_int_t challenge(ngx_http_request_t *r, access_decision &decision, std::string_view realm,
                                  const refusal &answer) noexcept
{
    const credential_schemes &schemes = decision.lcf->sources.schemes;

    take_back_challenges(decision);  // set in a previous location

    if (schemes.bearer || !schemes.basic) {
        const bool is_about_scopes = decision.verdict == access_verdict::scope_denied;
        decision.bearer_challenge =
            push_bearer(r, realm, answer.parameters,
                        is_about_scopes ? decision.request.required : std::span<const scope_requirement>{});
        if (decision.bearer_challenge == nullptr) {
            return NGX_ERROR;
        }
    }
    if (schemes.basic && answer.status == NGX_HTTP_UNAUTHORIZED) {
        decision.basic_challenge = push_basic(r, realm);
        if (decision.basic_challenge == nullptr) {
            return NGX_ERROR;
        }
    }
    decision.state.challenge();

    return NGX_OK;
}

}  // namespace

void log_refusal(ngx_http_request_t *r, const access_decision &decision, const char *consequence) noexcept
{
    const char *why = reason(decision.verdict);

    if (decision.verdict == access_verdict::missing) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "no access token was provided%s", consequence);
    } else if (why == nullptr) {
        return;
    } else if (decision.has_record) {
        const ngx_str_t id = to_ngx(is_id(decision.token.id) ? decision.token.id : "?");
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "access token \"%V\" %s%s", &id, why, consequence);
    } else {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "access token %s%s", why, consequence);
    }
}

void log_store(ngx_log_t *log, const loc_conf &lcf, const finding &finding) noexcept
{
    const auto *path = reinterpret_cast<const char *>(lcf.store->path.data);

    if (finding.verdict == access_verdict::store_error) {
        log_fault(NGX_LOG_CRIT, log, path, finding.problem);
    } else if (finding.verdict != access_verdict::stale) {
        return;
    } else if (finding.heartbeat == 0) {
        ngx_log_error(NGX_LOG_CRIT, log, 0, "auth_pat store \"%s\" is stale: no source has ever been reached", path);
    } else {
        ngx_log_error(
            NGX_LOG_CRIT, log, 0,
            "auth_pat store \"%s\" is stale: its source was reached %T seconds ago, and at most %T are allowed", path,
            ngx_time() - static_cast<time_t>(finding.heartbeat), lcf.max_age);
    }
}

ngx_int_t refuse(ngx_http_request_t *r, access_decision &decision, std::string_view realm) noexcept
{
    log_refusal(r, decision, "");

    const refusal answer = refusal_for(decision);

    // Do not invite an upload after a refusal, whatever error_page makes of it. With `satisfy any`, another module may
    // still let the request in.
    const auto *clcf =
        static_cast<const ngx_http_core_loc_conf_t *>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    if (clcf->satisfy == NGX_HTTP_SATISFY_ALL) {
        r->expect_tested = 1;
    }

    if (answer.status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        if (decision.retry_after == nullptr) {
            decision.retry_after = push_header(r, "Retry-After", to_ngx(retry_after_seconds));
        }
        return decision.retry_after != nullptr ? answer.status : NGX_ERROR;
    }

    // Other statuses, which auth_pat_require may set, carry no challenge (RFC 9110, section 11.6.1).
    if (answer.status == NGX_HTTP_UNAUTHORIZED || answer.status == NGX_HTTP_FORBIDDEN) {
        if (challenge(r, decision, realm, answer) != NGX_OK) {
            return NGX_ERROR;
        }
    }
    return answer.status;
}

}  // namespace pat::ngx
