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

/// Takes the decision off its queue at the end of the request. find_kept_decision() also recognises the decision by
/// this handler.
void end_decision(void *data) noexcept
{
    leave(static_cast<access_decision *>(data)->link);
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

/// Whether a variable in a value could not be evaluated. nginx treats it as not found, which makes the value too short.
/// Not found on a second try means that it really is not there.
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

/// Evaluates an expression. Returns false if it, or a variable in it, cannot be evaluated.
[[nodiscard]] bool evaluate(ngx_http_request_t *r, ngx_http_complex_value_t &expression, ngx_str_t &out) noexcept
{
    return ngx_http_complex_value(r, &expression, &out) == NGX_OK && !has_failed(r, expression);
}

/// Collects the credentials of a request. More than one is malformed, whatever they hold.
class presented_credentials {
public:
    void add(const credential &next) noexcept
    {
        if (has_one_) {
            result_ = {credential_kind::malformed, {}};
            return;
        }
        result_ = next;
        has_one_ = true;
    }

    [[nodiscard]] const credential &result() const noexcept { return result_; }

private:
    credential result_{credential_kind::none, {}};
    bool has_one_ = false;
};

/// Reads what is not in the Authorization header. Each line of a header is a credential, even if it is empty. A line
/// that an upstream may take for one of these is malformed: nothing strips it. Returns false if the variable cannot be
/// evaluated.
[[nodiscard, gnu::noinline]] bool read_other_sources(ngx_http_request_t *r, const source_conf &sources,
                                                     presented_credentials &out) noexcept
{
    if (sources.headers != nullptr) {
        for (const ngx_str_t &name : items<ngx_str_t>(*sources.headers)) {
            const auto is_alike = [&](std::string_view other) { return is_same_variable(view(name), other); };

            const ngx_table_elt_t *header = nullptr;
            while ((header = find_header_if(r, is_alike, header)) != nullptr) {
                out.add(lower_name(*header) == view(name) ? parse_field(view(header->value))
                                                          : credential{credential_kind::malformed, {}});
            }
        }
    }
    if (sources.token != nullptr) {
        ngx_str_t value;
        if (!evaluate(r, *sources.token, value)) {
            return false;
        }
        if (value.len != 0) {
            out.add(parse_value(view(value)));
        }
    }
    return true;
}

/// Reads what the client presented. Returns false if it cannot be evaluated.
[[nodiscard]] bool read_credential(ngx_http_request_t *r, const source_conf &sources, basic_buffer &buffer,
                                   presented_credentials &out) noexcept
{
    if (r->headers_in.authorization != nullptr && sources.has_authorization()) {
        out.add(parse_authorization(view(r->headers_in.authorization->value), sources.schemes, buffer));

        // nginx refuses a request with two Authorization headers, but the error page of that may be guarded.
        if (r->internal && has_two_authorizations(r)) {
            out.add({credential_kind::malformed, {}});
        }
    }
    return (sources.headers == nullptr && sources.token == nullptr) || read_other_sources(r, sources, out);
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

/// Reads the required scopes. Returns false if they cannot be evaluated.
[[nodiscard]] bool read_requirements(ngx_http_request_t *r, const loc_conf &lcf,
                                     std::span<const scope_requirement> &out) noexcept
{
    if (lcf.require_scope == nullptr) {
        return true;
    }

    auto *requirements = allocate<scope_requirement>(r->pool, lcf.require_scope->nelts);
    if (requirements == nullptr) {
        return false;
    }

    auto *requirement = requirements;
    for (scope_conf &scope : items<scope_conf>(*lcf.require_scope)) {
        ngx_str_t value;
        if (!evaluate(r, scope.scopes, value)) {
            return false;
        }
        *requirement++ = {view(value), scope.any};
    }

    out = {requirements, requirement};
    return true;
}

/// Whether the request is a CORS preflight (Fetch standard, CORS-preflight request), which never has a token.
[[nodiscard]] bool is_preflight(const ngx_http_request_t *r) noexcept
{
    return r->method == NGX_HTTP_OPTIONS && find_header(r, "origin") != nullptr
           && find_header(r, "access-control-request-method") != nullptr;
}

/// What a decision is made from.
struct request_evidence {
    bool is_off = false;
    bool is_preflight = false;
    presented_credentials presented;
    basic_buffer buffer;  ///< may have the token
    std::span<const scope_requirement> required;
};

enum class gathered { all, without_realm, in_part };

/// Evaluates what a decision is made from. The decision is in state `deciding` meanwhile, which reveals a variable of
/// ours that depends on itself.
[[nodiscard]] gathered gather(ngx_http_request_t *r, const loc_conf &lcf, ngx_str_t &realm,
                              request_evidence &out) noexcept
{
    if (ngx_http_complex_value(r, lcf.realm, &realm) != NGX_OK) {
        return gathered::without_realm;
    }
    out.is_off = turns_off(lcf, realm);
    out.is_preflight = !out.is_off && lcf.pass_preflight != 0 && is_preflight(r);
    if (out.is_off || out.is_preflight) {
        return gathered::all;
    }
    return read_credential(r, lcf.sources, out.buffer, out.presented) && read_requirements(r, lcf, out.required)
               ? gathered::all
               : gathered::in_part;
}

/// Looks a token up and decides about it.
[[nodiscard]] finding look_up(const loc_conf &lcf, const token_key &key, const facts &request,
                              store::allocator allocate, void *context, token_record &token) noexcept
{
    store::reader *reader = lcf.store->reader;
    if (reader == nullptr) {
        return {access_verdict::store_error, true, false, {store::fault_kind::absent}, 0};
    }

    const store::lookup_result result = reader->lookup(*lcf.make_digest, key, allocate, context, token);
    if (result.problem) {
        const bool is_about_token =
            result.problem.kind == store::fault_kind::bad_record || result.problem.code == ENOMEM;
        return {access_verdict::store_error, !is_about_token || !reader->is_open(), false, result.problem, 0};
    }
    if (!result.found) {
        return {access_verdict::unknown, false, false, {}, result.heartbeat};
    }

    const time_t now = ngx_time();
    const access_verdict verdict = decide(token, request, now);
    if (verdict == access_verdict::ok && is_stale(result.heartbeat, lcf.max_age, now)) {
        return {access_verdict::stale, true, true, {}, result.heartbeat};
    }
    return {verdict, false, true, {}, result.heartbeat};
}

/// Does the same for the decision's token, with its record in the request's pool.
[[nodiscard]] finding look_up(ngx_http_request_t *r, const loc_conf &lcf, access_decision &decision) noexcept
{
    return look_up(lcf, decision.key, decision.request, allocate_record, r->pool, decision.token);
}

/// Decides about what was gathered, and keeps in `decision` what later lookups need.
[[nodiscard]] finding examine(ngx_http_request_t *r, const loc_conf &lcf, const request_evidence &evidence,
                              access_decision &decision) noexcept
{
    const auto without_record = [](access_verdict verdict) { return finding{verdict, false, false, {}, 0}; };

    decision.request = {{}, evidence.required, lcf.leeway};

    if (evidence.is_preflight) {
        return without_record(access_verdict::preflight);
    }
    const credential &presented = evidence.presented.result();
    if (presented.kind == credential_kind::none) {
        // Without a token there are no scopes, so where a scope is required, a token is.
        const bool is_enough = std::ranges::all_of(
            evidence.required, [](const scope_requirement &required) { return satisfies({}, required); });
        return without_record(lcf.optional != 0 && is_enough ? access_verdict::anonymous : access_verdict::missing);
    }
    if (presented.kind == credential_kind::malformed
        || (lcf.prefix.len != 0 && !is_issued_form(presented.token, view(lcf.prefix)))) {
        return without_record(access_verdict::malformed);
    }

    decision.request.peer = peer_of(*r->connection);
    decision.key = make_token_key((*lcf.make_digest)(presented.token));
    return look_up(r, lcf, decision);
}

/// Copies a finding into the decision, and logs its problem, if any.
void record_finding(ngx_http_request_t *r, const loc_conf &lcf, const finding &finding,
                    access_decision &decision) noexcept
{
    if (finding.is_about_store || finding.problem) {
        log_store(r->connection->log, lcf, finding);
    }

    decision.lcf = &lcf;
    decision.decided_at = ngx_current_msec;
    decision.verdict = finding.verdict;
    decision.has_record = finding.has_record;
    decision.fails_open = finding.is_about_store;
    decision.let_in = lets_in(finding.verdict) || (lcf.fail_open != 0 && finding.is_about_store);
}

/// Evaluates auth_pat_require. Sets `status` to that of the refusal, or to 0. Returns false if a value cannot be
/// evaluated.
[[nodiscard]] bool check_required(ngx_http_request_t *r, const loc_conf &lcf, ngx_int_t &status) noexcept
{
    status = 0;

    for (const require_conf &requirement : items<require_conf>(*lcf.require)) {
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

/// Refuses a request that was let in but does not meet auth_pat_require. Our variables are available to it, with the
/// values they have if the requirement holds.
void demand_required(ngx_http_request_t *r, access_decision &decision) noexcept
{
    ngx_int_t status;
    const bool is_known = check_required(r, *decision.lcf, status);
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

bool make_decision(ngx_http_request_t *r, const loc_conf &lcf, bool enforced, ngx_str_t &realm,
                   access_decision &decision) noexcept
{
    decision.state.begin();

    request_evidence evidence;
    const gathered result = gather(r, lcf, realm, evidence);

    if (decision.state.is_circular() || result != gathered::all) {
        const bool is_circular = decision.state.is_circular();
        if (is_circular) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "realm, token or scope of \"auth_pat\" depends on a variable that it sets itself");
        }
        record_finding(r, lcf, {access_verdict::store_error, false, false, {}, 0}, decision);
        decision.state.settle(enforced);
        return !is_circular && result == gathered::in_part;
    }
    if (evidence.is_off) {
        decision.state.turn_off();
        if (decision.state.is_off()) {
            decision.lcf = &lcf;
        }
        return true;
    }

    record_finding(r, lcf, examine(r, lcf, evidence, decision), decision);
    decision.state.weigh();
    if (lcf.require != nullptr && decision.let_in && decision.verdict != access_verdict::preflight) {
        demand_required(r, decision);
    }
    decision.state.settle(enforced);
    return true;
}

access_decision *find_kept_decision(ngx_http_request_t *r) noexcept
{
    for (ngx_pool_cleanup_t *cleanup = r->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == end_decision) {
            auto *decision = static_cast<access_decision *>(cleanup->data);
            ngx_http_set_ctx(r, decision, ngx_http_auth_pat_module);
            if (r->filter_finalize) {  // the response headers have been cleared
                decision->bearer_challenge = nullptr;
                decision->basic_challenge = nullptr;
                decision->retry_after = nullptr;
            }
            return decision;
        }
    }
    return nullptr;
}

void renew_decision(ngx_http_request_t *r, access_decision &decision) noexcept
{
    const loc_conf &lcf = *decision.lcf;

    record_finding(r, lcf, look_up(r, lcf, decision), decision);
    decision.state.renew();

    // After a redirect to another location, the values of auth_pat_require may differ.
    if (lcf.require != nullptr && decision.let_in && &lcf == &loc_conf_of(r)) {
        forget_variables(r);
        demand_required(r, decision);
    }
}

bool recheck(ngx_http_request_t *r, access_decision &decision) noexcept
{
    const loc_conf &lcf = *decision.lcf;

    // Not in the request's pool, which would grow with each recheck.
    record_buffer memory;
    const auto allocate_once = [](void *buffer, std::size_t) noexcept -> void * {
        return static_cast<record_buffer *>(buffer)->data();
    };

    token_record token;
    const finding found = look_up(lcf, decision.key, decision.request, allocate_once, &memory, token);
    if (found.verdict == access_verdict::ok || (lcf.fail_open != 0 && found.is_about_store)) {
        return true;
    }

    log_store(r->connection->log, lcf, found);
    decision.verdict = found.verdict;
    decision.let_in = false;
    forget_variables(r);
    return false;
}

const access_decision *current_decision(ngx_http_request_t *r) noexcept
{
    static const access_decision no_decision{};

    r = r->main;

    const loc_conf &lcf = loc_conf_of(r);

    access_decision *decision = find_decision(r);
    if (decision != nullptr && decision->state.is_deciding()) {
        decision->state.ask();
        return nullptr;
    }
    if (decision != nullptr && decision->state.is_weighing()) {
        return decision;
    }
    if (has_no_decision(r)) {
        return &no_decision;
    }
    if (decision != nullptr && (decision->state.is_enforced() || decision->lcf == &lcf)) {
        return decision;
    }
    if (decision == nullptr && (decision = add_decision(r)) == nullptr) {
        return nullptr;
    }
    if (r->err_status == 0 && r->headers_out.status == 0) {
        decision->was_asked_early = true;
    }

    if (lcf.realm == nullptr) {
        decision->lcf = &lcf;
        decision->state.begin();
        decision->state.turn_off();
        return decision;
    }

    ngx_str_t realm;
    return make_decision(r, lcf, false, realm, *decision) ? decision : nullptr;
}

}  // namespace pat::ngx
