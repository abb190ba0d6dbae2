#include "nginx/pat_access.h"

#include "core/pat_token.h"
#include "nginx/pat_registry.h"
#include "nginx/pat_variables.h"
#include "store/pat_reader.h"

#include <algorithm>
#include <new>
#include <span>

namespace pat::ngx {

namespace {

/// A store that can't be read is tried again each second, so a client need not wait for longer.
constexpr std::string_view retry_after_seconds = "1";

/// Marks the decision in the list of the request's pool; a decision has nothing to clean up.
void decision_mark(void *) noexcept
{
}

/// The decision that was made for this request before, if any. An internal redirect wipes the request's contexts, but
/// not its pool (ngx_http_realip_module finds its own in the same way).
[[nodiscard]] decision *find_decision(ngx_http_request_t *r) noexcept
{
    auto *made = static_cast<decision *>(ngx_http_get_module_ctx(r, ngx_http_auth_pat_module));

    if (made == nullptr && (r->internal || r->filter_finalize)) {
        for (ngx_pool_cleanup_t *cleanup = r->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
            if (cleanup->handler == decision_mark) {
                made = static_cast<decision *>(cleanup->data);
                ngx_http_set_ctx(r, made, ngx_http_auth_pat_module);
                if (r->filter_finalize) {  // which has thrown the headers of the response away
                    made->challenge = nullptr;
                    made->retry_after = nullptr;
                }
                break;
            }
        }
    }
    return made;
}

[[nodiscard]] decision *make_room(ngx_http_request_t *r) noexcept
{
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, sizeof(decision));
    if (cleanup == nullptr) {
        return nullptr;
    }
    cleanup->handler = decision_mark;

    auto *made = new (cleanup->data) decision{};
    ngx_http_set_ctx(r, made, ngx_http_auth_pat_module);
    return made;
}

void *allocate_record(void *pool, std::size_t size) noexcept
{
    return ngx_palloc(static_cast<ngx_pool_t *>(pool), size);
}

/// What the client presented. False if there is no memory.
[[nodiscard]] bool read_credential(ngx_http_request_t *r, const loc_conf &conf, credential &out) noexcept
{
    if (conf.token != nullptr) {
        ngx_str_t value;
        if (ngx_http_complex_value(r, conf.token, &value) != NGX_OK) {
            return false;
        }
        if (value.len == 0) {
            out = {credential_kind::none, {}};
        } else if (is_token(view(value))) {
            out = {credential_kind::bearer, view(value)};
        } else {
            out = {credential_kind::malformed, {}};
        }
        return true;
    }

    // There is one at most: nginx refuses a request with two of them.
    if (r->headers_in.authorization == nullptr) {
        out = {credential_kind::none, {}};
    } else {
        out = parse_authorization(view(r->headers_in.authorization->value));
    }
    return true;
}

[[nodiscard]] address peer_of(const ngx_connection_t &connection) noexcept
{
    const auto bytes = [](const auto &field) { return std::as_bytes(std::span{&field, 1}); };

    switch (connection.sockaddr->sa_family) {
    case AF_INET: return make_address(bytes(reinterpret_cast<const sockaddr_in *>(connection.sockaddr)->sin_addr));
#if (NGX_HAVE_INET6)
    case AF_INET6: return make_address(bytes(reinterpret_cast<const sockaddr_in6 *>(connection.sockaddr)->sin6_addr));
#endif
    default: return {};
    }
}

/// What is required here of a token's scopes. False if there is no memory.
[[nodiscard]] bool read_requirements(ngx_http_request_t *r, const loc_conf &conf,
                                     std::span<const scope_requirement> &out) noexcept
{
    if (conf.require_scope == nullptr) {
        return true;
    }

    auto *requirements = allocate<scope_requirement>(r->pool, conf.require_scope->nelts);
    if (requirements == nullptr) {
        return false;
    }

    auto *requirement = requirements;
    for (auto *scope = begin<scope_conf>(*conf.require_scope); scope != end<scope_conf>(*conf.require_scope); scope++) {
        ngx_str_t value;
        if (ngx_http_complex_value(r, &scope->scopes, &value) != NGX_OK) {
            return false;
        }
        *requirement++ = {view(value), scope->any};
    }

    out = {requirements, requirement};
    return true;
}

/// Finds out about the token of a request. What can't be found out is a store_error, which lets nobody in.
[[nodiscard]] verdict examine(ngx_http_request_t *r, const loc_conf &conf, decision &made) noexcept
{
    credential presented;
    if (!read_credential(r, conf, presented)) {
        return verdict::store_error;
    }
    if (presented.kind == credential_kind::none) {
        return verdict::missing;
    }
    if (presented.kind == credential_kind::malformed
        || (conf.prefix.len != 0 && !is_issued_form(presented.token, view(conf.prefix)))) {
        return verdict::malformed;
    }

    facts request;
    request.peer = peer_of(*r->connection);
    request.leeway = conf.leeway;
    if (!read_requirements(r, conf, request.required)) {
        return verdict::store_error;
    }

    if (conf.store->reader == nullptr) {
        return verdict::store_error;
    }

    const store::lookup_result result =
        conf.store->reader->lookup(*conf.make_digest, presented.token, allocate_record, r->pool, made.token);
    if (result.problem) {
        log_fault(NGX_LOG_CRIT, r->connection->log, reinterpret_cast<const char *>(conf.store->path.data),
                  result.problem);
        return verdict::store_error;
    }
    if (!result.found) {
        return verdict::unknown;
    }

    made.has_record = true;
    return decide(made.token, request, ngx_time());
}

/// Validation can be turned off by the value of the realm, too.
[[nodiscard]] bool turns_off(const loc_conf &conf, const ngx_str_t &realm) noexcept
{
    return conf.realm->lengths != nullptr && view(realm) == "off";
}

/// Makes a decision under `conf`, which has a realm. False if it can't be made: there is no memory, or a realm, token
/// or scope depends on a variable of ours. nginx would take such a variable for empty, and an empty scope demands
/// nothing.
[[nodiscard]] bool make_decision(ngx_http_request_t *r, const loc_conf &conf, bool enforced, ngx_str_t &realm,
                                 decision &made) noexcept
{
    made.under_way = true;
    made.was_asked_for = false;

    const bool has_realm = ngx_http_complex_value(r, conf.realm, &realm) == NGX_OK;
    const bool off = has_realm && turns_off(conf, realm);

    // What was enforced before stays what counts where validation is off.
    if (has_realm && !(off && made.enforced)) {
        made.conf = &conf;
        made.off = off;
        made.enforced = enforced && !off;
        made.has_record = false;
        made.outcome = off ? verdict::store_error : examine(r, conf, made);
    }

    made.under_way = false;

    if (made.was_asked_for) {
        made.has_record = false;
        made.off = false;
        made.outcome = verdict::store_error;
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "realm, token or scope of \"auth_pat\" depends on a variable that it sets itself");
        return false;
    }
    return has_realm;
}

void log_refusal(ngx_http_request_t *r, const decision &made) noexcept
{
    ngx_log_t *log = r->connection->log;
    const ngx_str_t id = made.has_record ? to_ngx(made.token.id) : ngx_str_t{};

    switch (made.outcome) {
    case verdict::ok:
    case verdict::store_error:  // logged where it was found
        break;
    case verdict::missing: ngx_log_error(NGX_LOG_INFO, log, 0, "no access token was provided"); break;
    case verdict::malformed: ngx_log_error(NGX_LOG_INFO, log, 0, "access token is malformed"); break;
    case verdict::unknown: ngx_log_error(NGX_LOG_INFO, log, 0, "access token is unknown"); break;
    case verdict::revoked: ngx_log_error(NGX_LOG_INFO, log, 0, "access token \"%V\" was revoked", &id); break;
    case verdict::expired: ngx_log_error(NGX_LOG_INFO, log, 0, "access token \"%V\" expired", &id); break;
    case verdict::not_yet_valid:
        ngx_log_error(NGX_LOG_INFO, log, 0, "access token \"%V\" is not yet valid", &id);
        break;
    case verdict::address_denied:
        ngx_log_error(NGX_LOG_INFO, log, 0, "access token \"%V\" may not be used from this address", &id);
        break;
    case verdict::scope_denied: ngx_log_error(NGX_LOG_INFO, log, 0, "access token \"%V\" lacks a scope", &id); break;
    }
}

/// What a refusal tells the client (RFC 6750, section 3), besides the realm.
struct refusal {
    ngx_int_t status;
    std::string_view parameters;
};

[[nodiscard]] refusal refusal_for(verdict outcome) noexcept
{
    switch (outcome) {
    case verdict::ok:
    case verdict::store_error: break;
    case verdict::missing: return {NGX_HTTP_UNAUTHORIZED, ""};
    case verdict::malformed:
    case verdict::unknown:
        return {NGX_HTTP_UNAUTHORIZED, ", error=\"invalid_token\", error_description=\"The access token is invalid\""};
    case verdict::revoked:
        return {NGX_HTTP_UNAUTHORIZED, ", error=\"invalid_token\", error_description=\"The access token was revoked\""};
    case verdict::expired:
        return {NGX_HTTP_UNAUTHORIZED, ", error=\"invalid_token\", error_description=\"The access token expired\""};
    case verdict::not_yet_valid:
        return {NGX_HTTP_UNAUTHORIZED,
                ", error=\"invalid_token\", error_description=\"The access token is not yet valid\""};
    case verdict::address_denied:
        return {NGX_HTTP_FORBIDDEN, ", error=\"invalid_token\", "
                                    "error_description=\"The access token may not be used from this address\""};
    case verdict::scope_denied: return {NGX_HTTP_FORBIDDEN, ", error=\"insufficient_scope\""};
    }
    return {NGX_HTTP_SERVICE_UNAVAILABLE, ""};
}

/// Writes a quoted-string's contents (RFC 9110, section 5.6.4) to `to`, at most twice as long; a control character,
/// which could end the header, becomes a space.
u_char *write_quoted(u_char *to, std::string_view text) noexcept
{
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            *to++ = '\\';
        }
        const auto byte = static_cast<u_char>(c);
        *to++ = byte < 0x20 || byte == 0x7f ? ' ' : byte;
    }
    return to;
}

u_char *write(u_char *to, std::string_view text) noexcept
{
    return std::copy(text.begin(), text.end(), to);
}

[[nodiscard]] ngx_table_elt_t *push_header(ngx_http_request_t *r, std::string_view name, ngx_str_t value) noexcept
{
    auto *header = static_cast<ngx_table_elt_t *>(ngx_list_push(&r->headers_out.headers));
    if (header == nullptr) {
        return nullptr;
    }

    *header = {};  // since 1.23 it links to the next header of the name
    header->hash = 1;
    header->key = to_ngx(name);
    header->value = value;
    return header;
}

/// Challenges the client. Through `r->headers_out.www_authenticate`, nginx takes the challenge back if `satisfy any`
/// lets the request in after all.
[[nodiscard]] ngx_int_t challenge(ngx_http_request_t *r, decision &made, std::string_view realm,
                                  std::string_view parameters, std::span<const scope_requirement> required) noexcept
{
    constexpr std::string_view start = "Bearer realm=\"";
    constexpr std::string_view scope_start = ", scope=\"";

    std::size_t size = start.size() + 2 * realm.size() + 1 + parameters.size() + scope_start.size() + 1;
    for (const scope_requirement &requirement : required) {
        size += 2 * requirement.scopes.size() + 1;
    }

    auto *value = allocate<u_char>(r->pool, size);
    if (value == nullptr) {
        return NGX_ERROR;
    }

    u_char *at = write(value, start);
    at = write_quoted(at, realm);
    at = write(at, "\"");
    at = write(at, parameters);

    std::string_view separator = scope_start;
    for (const scope_requirement &requirement : required) {
        std::string_view rest = requirement.scopes;
        for (std::string_view scope = take_scope(rest); !scope.empty(); scope = take_scope(rest)) {
            at = write(at, separator);
            at = write_quoted(at, scope);
            separator = " ";
        }
    }
    if (separator != scope_start) {
        at = write(at, "\"");
    }

    if (made.challenge != nullptr) {
        made.challenge->hash = 0;  // of a location the request was in before
    }

    made.challenge = push_header(r, "WWW-Authenticate", {static_cast<std::size_t>(at - value), value});
    if (made.challenge == nullptr) {
        return NGX_ERROR;
    }
#if (nginx_version >= 1023000)
    made.challenge->next = r->headers_out.www_authenticate;
#endif
    r->headers_out.www_authenticate = made.challenge;

    return NGX_OK;
}

[[nodiscard]] ngx_int_t refuse(ngx_http_request_t *r, const loc_conf &conf, decision &made,
                               std::string_view realm) noexcept
{
    log_refusal(r, made);

    const refusal answer = refusal_for(made.outcome);

    // No upload after a refusal, whatever error_page makes of it. With `satisfy any`, others may still let it in.
    const auto *core =
        static_cast<const ngx_http_core_loc_conf_t *>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    if (core->satisfy == NGX_HTTP_SATISFY_ALL) {
        r->expect_tested = 1;
    }

    if (answer.status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        if (made.retry_after == nullptr) {
            made.retry_after = push_header(r, "Retry-After", to_ngx(retry_after_seconds));
        }
        return made.retry_after != nullptr ? answer.status : NGX_ERROR;
    }

    std::span<const scope_requirement> required;
    if (made.outcome == verdict::scope_denied && !read_requirements(r, conf, required)) {
        return NGX_ERROR;
    }
    if (challenge(r, made, realm, answer.parameters, required) != NGX_OK) {
        return NGX_ERROR;
    }
    return answer.status;
}

[[nodiscard]] const loc_conf &conf_of(ngx_http_request_t *r) noexcept
{
    return *static_cast<const loc_conf *>(ngx_http_get_module_loc_conf(r, ngx_http_auth_pat_module));
}

}  // namespace

ngx_int_t handle_access(ngx_http_request_t *r) noexcept
{
    const loc_conf &conf = conf_of(r);

    if (conf.realm == nullptr) {
        return NGX_DECLINED;
    }

    // A decision that a variable asked for before this phase does not count: the token, the address and the scopes that
    // are needed may have changed since, or the token may have been revoked while limit_req held the request up.
    decision *made = find_decision(r);
    if (made != nullptr) {
        forget_variables(r);
    } else if ((made = make_room(r)) == nullptr) {
        return NGX_ERROR;
    }

    ngx_str_t realm;
    if (!make_decision(r, conf, true, realm, *made)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (turns_off(conf, realm)) {
        return NGX_DECLINED;
    }

    if (made->outcome != verdict::ok) {
        return refuse(r, conf, *made, view(realm));
    }

    // Of a location where the request was refused.
    for (ngx_table_elt_t *header : {made->challenge, made->retry_after}) {
        if (header != nullptr) {
            header->hash = 0;
        }
    }
    made->retry_after = nullptr;
    return NGX_OK;
}

#if (nginx_version < 1023000)
ngx_int_t take_back_challenge(ngx_http_request_t *r) noexcept
{
    const auto *made = static_cast<const decision *>(ngx_http_get_module_ctx(r, ngx_http_auth_pat_module));

    if (made != nullptr && made->challenge != nullptr && !r->error_page) {
        made->challenge->hash = 0;
    }
    return NGX_DECLINED;
}
#endif

const decision *current_decision(ngx_http_request_t *r) noexcept
{
    r = r->main;

    const loc_conf &conf = conf_of(r);

    decision *made = find_decision(r);
    if (made != nullptr && made->under_way) {
        made->was_asked_for = true;
        return nullptr;
    }
    if (made != nullptr && (made->enforced || made->conf == &conf)) {
        return made;
    }
    if (made == nullptr && (made = make_room(r)) == nullptr) {
        return nullptr;
    }

    if (conf.realm == nullptr) {
        made->conf = &conf;
        made->off = true;
        return made;
    }

    ngx_str_t realm;
    return make_decision(r, conf, false, realm, *made) ? made : nullptr;
}

}  // namespace pat::ngx
