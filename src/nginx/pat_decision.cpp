#include "nginx/pat_decision.h"

#include "core/pat_token.h"
#include "nginx/pat_challenge.h"
#include "nginx/pat_variables.h"
#include "store/pat_reader.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <span>

namespace pat::ngx {

namespace {

/// Marks the decision in the list of the request's pool, and ends it with the request.
void end_decision(void *data) noexcept
{
    leave(static_cast<access_decision *>(data)->place);
}

void *allocate_record(void *pool, std::size_t size) noexcept
{
    return ngx_palloc(static_cast<ngx_pool_t *>(pool), size);
}

[[nodiscard]] bool has_two_authorizations(const ngx_http_request_t *r) noexcept
{
    const ngx_table_elt_t *header = find_header(r, "authorization");
    return header != nullptr && find_header(r, "authorization", header) != nullptr;
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

    // There is one at most: nginx refuses a request with two of them. But its error page may be guarded.
    if (r->internal && has_two_authorizations(r)) {
        out = {credential_kind::malformed, {}};
    } else if (r->headers_in.authorization == nullptr) {
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

/// Whether a variable of a value could not be evaluated. nginx takes it for one that is not there, and the value is
/// then shorter than it should be. What is not there the second time is not there.
[[nodiscard]] bool has_failed(ngx_http_request_t *r, const ngx_http_complex_value_t &value) noexcept
{
    constexpr auto end = static_cast<ngx_uint_t>(-1);

    for (const ngx_uint_t *index = value.flushes; index != nullptr && *index != end; index++) {
        ngx_http_variable_value_t &once = r->variables[*index];
        if (once.valid) {
            continue;
        }
        once.not_found = 0;
        const ngx_http_variable_value_t *again = ngx_http_get_indexed_variable(r, *index);
        if (again == nullptr || again->valid) {
            return true;
        }
    }
    return false;
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
    for (scope_conf &scope : items<scope_conf>(*conf.require_scope)) {
        ngx_str_t value;
        if (ngx_http_complex_value(r, &scope.scopes, &value) != NGX_OK || has_failed(r, scope.scopes)) {
            return false;
        }
        *requirement++ = {view(value), scope.any};
    }

    out = {requirements, requirement};
    return true;
}

/// A browser's question whether it may send a request from another origin (Fetch standard, CORS-preflight request). It
/// never has a token.
[[nodiscard]] bool is_preflight(const ngx_http_request_t *r) noexcept
{
    return r->method == NGX_HTTP_OPTIONS && find_header(r, "origin") != nullptr
           && find_header(r, "access-control-request-method") != nullptr;
}

/// Looks a token up, and decides about it.
[[nodiscard]] finding look_up(const loc_conf &conf, const token_key &key, const facts &request,
                              store::allocator allocate, void *context, token_record &token) noexcept
{
    store::reader *reader = conf.store->reader;
    if (reader == nullptr) {
        return {access_verdict::store_error, true, false, {store::fault_kind::absent}, 0};
    }

    const store::lookup_result result = reader->lookup(*conf.make_digest, key, allocate, context, token);
    if (result.problem) {
        const bool is_of_one = result.problem.kind == store::fault_kind::bad_record || result.problem.code == ENOMEM;
        return {access_verdict::store_error, !is_of_one || !reader->is_open(), false, result.problem, 0};
    }
    if (!result.found) {
        return {access_verdict::unknown, false, false, {}, result.heartbeat};
    }

    const time_t now = ngx_time();
    const access_verdict verdict = decide(token, request, now);
    if (verdict == access_verdict::ok && is_stale(result.heartbeat, conf.max_age, now)) {
        return {access_verdict::stale, true, true, {}, result.heartbeat};
    }
    return {verdict, false, true, {}, result.heartbeat};
}

/// Finds out about the token of a request. What can't be found out is a store_error.
[[nodiscard]] access_verdict examine(ngx_http_request_t *r, const loc_conf &conf, access_decision &decision) noexcept
{
    if (conf.pass_preflight != 0 && is_preflight(r)) {
        return access_verdict::preflight;
    }

    credential presented;
    decision.request = {};
    if (!read_credential(r, conf, presented) || !read_requirements(r, conf, decision.request.required)) {
        return access_verdict::store_error;
    }

    if (presented.kind == credential_kind::none) {
        // Nobody has no scopes, so that where one is needed, a token is.
        const bool is_enough = std::all_of(decision.request.required.begin(), decision.request.required.end(),
                                           [](const scope_requirement &required) { return satisfies({}, required); });
        return conf.optional != 0 && is_enough ? access_verdict::anonymous : access_verdict::missing;
    }
    if (presented.kind == credential_kind::malformed
        || (conf.prefix.len != 0 && !is_issued_form(presented.token, view(conf.prefix)))) {
        return access_verdict::malformed;
    }

    decision.request.peer = peer_of(*r->connection);
    decision.request.leeway = conf.leeway;
    decision.key = make_token_key((*conf.make_digest)(presented.token));

    const finding found = look_up(conf, decision.key, decision.request, allocate_record, r->pool, decision.token);
    if (found.is_of_store || found.problem) {
        log_store(r->connection->log, conf, found);
    }

    decision.has_record = found.found;
    decision.fails_open = found.is_of_store;
    return found.verdict;
}

/// Evaluates what else is required. `status` is that of the refusal, or 0. False if there is no memory.
[[nodiscard]] bool check_required(ngx_http_request_t *r, const loc_conf &conf, ngx_int_t &status) noexcept
{
    status = 0;

    for (const require_conf &requirement : items<require_conf>(*conf.require)) {
        for (ngx_http_complex_value_t &expression : items<ngx_http_complex_value_t>(requirement.values)) {
            ngx_str_t value;
            if (ngx_http_complex_value(r, &expression, &value) != NGX_OK) {
                return false;
            }
            if (value.len == 0 || view(value) == "0") {
                status = requirement.status;
                return true;
            }
        }
    }
    return true;
}

/// Refuses who was let in, but lacks what else is required. Here our variables may be asked for: they have the values
/// that they will have if this holds.
void demand_required(ngx_http_request_t *r, access_decision &decision) noexcept
{
    ngx_int_t status;
    const bool is_known = check_required(r, *decision.conf, status);
    if (is_known && status == 0) {
        return;
    }
    decision.let_in = false;
    decision.require_status = status;
    if (!is_known) {
        decision.verdict = access_verdict::store_error;
    } else if (lets_in(decision.verdict)) {
        decision.verdict = access_verdict::require_denied;
    }
    forget_variables(r);
}

}  // namespace

const access_decision no_decision = [] {
    access_decision decision{};
    decision.never_made = true;
    return decision;
}();

access_decision *add_decision(ngx_http_request_t *r) noexcept
{
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, sizeof(access_decision));
    if (cleanup == nullptr) {
        return nullptr;
    }
    cleanup->handler = end_decision;

    auto *decision = new (cleanup->data) access_decision{};
    ngx_http_set_ctx(r, decision, ngx_http_auth_pat_module);
    return decision;
}

bool make_decision(ngx_http_request_t *r, const loc_conf &conf, bool enforced, ngx_str_t &realm,
                   access_decision &decision) noexcept
{
    decision.under_way = true;
    decision.was_asked_for = false;

    const bool has_realm = ngx_http_complex_value(r, conf.realm, &realm) == NGX_OK;
    const bool off = has_realm && turns_off(conf, realm);

    // What was enforced before stays what counts where validation is off.
    if (!(off && decision.enforced)) {
        decision.conf = &conf;
        decision.off = off;
        decision.enforced = enforced && !off;
        decision.decided_at = ngx_current_msec;
        decision.has_record = false;
        decision.fails_open = false;
        decision.verdict = off || !has_realm ? access_verdict::store_error : examine(r, conf, decision);
        decision.let_in = !off && (lets_in(decision.verdict) || (conf.fail_open != 0 && decision.fails_open));
    }

    decision.under_way = false;

    if (decision.was_asked_for) {
        decision.has_record = false;
        decision.off = false;
        decision.let_in = false;
        decision.verdict = access_verdict::store_error;
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "realm, token or scope of \"auth_pat\" depends on a variable that it sets itself");
        return false;
    }
    if (!has_realm) {
        return false;
    }

    if (conf.require != nullptr && decision.let_in && decision.verdict != access_verdict::preflight && !off) {
        demand_required(r, decision);
    }
    return true;
}

access_decision *find_kept_decision(ngx_http_request_t *r) noexcept
{
    for (ngx_pool_cleanup_t *cleanup = r->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == end_decision) {
            auto *decision = static_cast<access_decision *>(cleanup->data);
            ngx_http_set_ctx(r, decision, ngx_http_auth_pat_module);
            if (r->filter_finalize) {  // which has thrown the headers of the response away
                decision->challenge = nullptr;
                decision->retry_after = nullptr;
            }
            return decision;
        }
    }
    return nullptr;
}

void renew_decision(ngx_http_request_t *r, access_decision &decision) noexcept
{
    const loc_conf &conf = *decision.conf;

    const finding found = look_up(conf, decision.key, decision.request, allocate_record, r->pool, decision.token);
    if (found.is_of_store || found.problem) {
        log_store(r->connection->log, conf, found);
    }

    decision.decided_at = ngx_current_msec;
    decision.has_record = found.found;
    decision.fails_open = found.is_of_store;
    decision.verdict = found.verdict;
    decision.let_in = lets_in(decision.verdict) || (conf.fail_open != 0 && decision.fails_open);

    // In another location, where a redirect has led, what is required may have another value.
    if (conf.require != nullptr && decision.let_in && &conf == &loc_conf_of(r)) {
        forget_variables(r);
        demand_required(r, decision);
    }
}

bool recheck(ngx_http_request_t *r, access_decision &decision) noexcept
{
    const loc_conf &conf = *decision.conf;

    // Not in the request's pool, which would grow for as long as the request lasts.
    record_buffer memory;
    const auto allocate_once = [](void *buffer, std::size_t) noexcept -> void * {
        return static_cast<record_buffer *>(buffer)->data();
    };

    token_record token;
    const finding found = look_up(conf, decision.key, decision.request, allocate_once, &memory, token);
    if (found.verdict == access_verdict::ok || (conf.fail_open != 0 && found.is_of_store)) {
        return true;
    }

    log_store(r->connection->log, conf, found);
    decision.verdict = found.verdict;
    decision.let_in = false;
    forget_variables(r);
    return false;
}

const access_decision *current_decision(ngx_http_request_t *r) noexcept
{
    r = r->main;

    const loc_conf &conf = loc_conf_of(r);

    access_decision *decision = find_decision(r);
    if (decision != nullptr && decision->under_way) {
        decision->was_asked_for = true;
        return nullptr;
    }
    if (decision != nullptr && decision->never_made) {
        return &no_decision;
    }
    if (decision != nullptr && (decision->enforced || decision->conf == &conf)) {
        return decision;
    }
    if (is_unread(r)) {
        return &no_decision;
    }
    if (decision == nullptr && (decision = add_decision(r)) == nullptr) {
        return nullptr;
    }
    if (r->err_status == 0 && r->headers_out.status == 0) {
        decision->was_asked_early = true;
    }

    if (conf.realm == nullptr) {
        decision->conf = &conf;
        decision->off = true;
        return decision;
    }

    ngx_str_t realm;
    return make_decision(r, conf, false, realm, *decision) ? decision : nullptr;
}

}  // namespace pat::ngx
