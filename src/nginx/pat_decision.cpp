#include "nginx/pat_decision.h"

#include "core/pat_token.h"
#include "nginx/pat_reply.h"
#include "nginx/pat_stores.h"
#include "nginx/pat_variables.h"
#include "nginx/pat_zone.h"
#include "store/pat_reader.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <optional>
#include <span>

namespace pat::ngx {

namespace {

/// A store that can't be read is tried again each second, so a client need not wait for longer.
constexpr std::string_view retry_after_seconds = "1";

/// Of a request that nginx has answered before the access phase.
constexpr decision no_decision = [] {
    decision made{};
    made.never_made = true;
    return made;
}();

/// Marks the decision in the list of the request's pool, and ends it with the request.
void end_decision(void *data) noexcept
{
    leave(static_cast<decision *>(data)->place);
}

[[nodiscard]] decision *make_room(ngx_http_request_t *r) noexcept
{
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(r->pool, sizeof(decision));
    if (cleanup == nullptr) {
        return nullptr;
    }
    cleanup->handler = end_decision;

    auto *made = new (cleanup->data) decision{};
    ngx_http_set_ctx(r, made, ngx_http_auth_pat_module);
    return made;
}

void *allocate_record(void *pool, std::size_t size) noexcept
{
    return ngx_palloc(static_cast<ngx_pool_t *>(pool), size);
}

[[nodiscard]] bool has_two_authorizations(const ngx_http_request_t *r) noexcept
{
    std::size_t count = 0;
    for (const ngx_list_part_t *part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        for (const ngx_table_elt_t &header : std::span{static_cast<ngx_table_elt_t *>(part->elts), part->nelts}) {
            count += view({header.key.len, header.lowcase_key}) == "authorization" ? 1 : 0;
        }
    }
    return count > 1;
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
    for (auto *scope = begin<scope_conf>(*conf.require_scope); scope != end<scope_conf>(*conf.require_scope); scope++) {
        ngx_str_t value;
        if (ngx_http_complex_value(r, &scope->scopes, &value) != NGX_OK || has_failed(r, scope->scopes)) {
            return false;
        }
        *requirement++ = {view(value), scope->any};
    }

    out = {requirements, requirement};
    return true;
}

[[nodiscard]] const ngx_table_elt_t *find_header(const ngx_http_request_t *r, std::string_view lower_case) noexcept
{
    for (const ngx_list_part_t *part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        for (const ngx_table_elt_t &header : std::span{static_cast<ngx_table_elt_t *>(part->elts), part->nelts}) {
            if (view({header.key.len, header.lowcase_key}) == lower_case) {
                return &header;
            }
        }
    }
    return nullptr;
}

/// A browser's question whether it may send a request from another origin (Fetch standard, CORS-preflight request). It
/// never has a token.
[[nodiscard]] bool is_preflight(const ngx_http_request_t *r) noexcept
{
    return r->method == NGX_HTTP_OPTIONS && find_header(r, "origin") != nullptr
           && find_header(r, "access-control-request-method") != nullptr;
}

/// What the store says of a token.
struct finding {
    verdict outcome;
    bool is_of_store;  ///< it tells something about the store, and not about the token or this request
    bool found;
    store::fault problem;  ///< behind a store_error
    std::int64_t heartbeat;
};

/// Looks a token up, and decides about it.
[[nodiscard]] finding look_up(const loc_conf &conf, const token_key &key, const facts &request,
                              store::allocator allocate, void *context, record &token) noexcept
{
    store::reader *reader = conf.store->reader;
    if (reader == nullptr) {
        return {verdict::store_error, true, false, {store::fault_kind::absent}, 0};
    }

    const store::lookup_result got = reader->lookup(*conf.make_digest, key, allocate, context, token);
    if (got.problem) {
        const bool is_of_one = got.problem.kind == store::fault_kind::bad_record || got.problem.code == ENOMEM;
        return {verdict::store_error, !is_of_one || !reader->is_open(), false, got.problem, 0};
    }
    if (!got.found) {
        return {verdict::unknown, false, false, {}, got.heartbeat};
    }

    const time_t now = ngx_time();
    const verdict outcome = decide(token, request, now);
    if (outcome == verdict::ok && is_stale(got.heartbeat, conf.max_age, now)) {
        return {verdict::stale, true, true, {}, got.heartbeat};
    }
    return {outcome, false, true, {}, got.heartbeat};
}

/// Writes to the log what is the matter with a store.
void log_store(ngx_log_t *log, const loc_conf &conf, const finding &of) noexcept
{
    const auto *path = reinterpret_cast<const char *>(conf.store->path.data);

    if (of.outcome == verdict::store_error) {
        log_fault(NGX_LOG_CRIT, log, path, of.problem);
    } else if (of.outcome != verdict::stale) {
        return;
    } else if (of.heartbeat == 0) {
        ngx_log_error(NGX_LOG_CRIT, log, 0, "auth_pat store \"%s\" is stale: no source has ever been reached", path);
    } else {
        ngx_log_error(
            NGX_LOG_CRIT, log, 0,
            "auth_pat store \"%s\" is stale: its source was reached %T seconds ago, and at most %T are allowed", path,
            ngx_time() - static_cast<time_t>(of.heartbeat), conf.max_age);
    }
}

/// Finds out about the token of a request. What can't be found out is a store_error.
[[nodiscard]] verdict examine(ngx_http_request_t *r, const loc_conf &conf, decision &made) noexcept
{
    if (conf.pass_preflight != 0 && is_preflight(r)) {
        return verdict::preflight;
    }

    credential presented;
    made.request = {};
    if (!read_credential(r, conf, presented) || !read_requirements(r, conf, made.request.required)) {
        return verdict::store_error;
    }

    if (presented.kind == credential_kind::none) {
        // Nobody has no scopes, so that where one is needed, a token is.
        const bool is_enough = std::all_of(made.request.required.begin(), made.request.required.end(),
                                           [](const scope_requirement &required) { return satisfies({}, required); });
        return conf.optional != 0 && is_enough ? verdict::anonymous : verdict::missing;
    }
    if (presented.kind == credential_kind::malformed
        || (conf.prefix.len != 0 && !is_issued_form(presented.token, view(conf.prefix)))) {
        return verdict::malformed;
    }

    made.request.peer = peer_of(*r->connection);
    made.request.leeway = conf.leeway;
    made.key = make_token_key((*conf.make_digest)(presented.token));

    const finding found = look_up(conf, made.key, made.request, allocate_record, r->pool, made.token);
    if (found.is_of_store || found.problem) {
        log_store(r->connection->log, conf, found);
    }

    made.has_record = found.found;
    made.fails_open = found.is_of_store;
    return found.outcome;
}

/// Evaluates what else is required. `status` is that of the refusal, or 0. False if there is no memory.
[[nodiscard]] bool check_required(ngx_http_request_t *r, const loc_conf &conf, ngx_int_t &status) noexcept
{
    status = 0;

    for (auto *one = begin<require_conf>(*conf.require); one != end<require_conf>(*conf.require); one++) {
        for (auto *expression = begin<ngx_http_complex_value_t>(one->values);
             expression != end<ngx_http_complex_value_t>(one->values); expression++) {
            ngx_str_t value;
            if (ngx_http_complex_value(r, expression, &value) != NGX_OK) {
                return false;
            }
            if (value.len == 0 || view(value) == "0") {
                status = one->status;
                return true;
            }
        }
    }
    return true;
}

/// Refuses who was let in, but lacks what else is required. Here our variables may be asked for: they have the values
/// that they will have if this holds.
void demand_required(ngx_http_request_t *r, decision &made) noexcept
{
    ngx_int_t status;
    const bool is_known = check_required(r, *made.conf, status);
    if (is_known && status == 0) {
        return;
    }
    made.let_in = false;
    made.require_status = status;
    if (!is_known) {
        made.outcome = verdict::store_error;
    } else if (lets_in(made.outcome)) {
        made.outcome = verdict::require_denied;
    }
    forget_variables(r);
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
    if (!(off && made.enforced)) {
        made.conf = &conf;
        made.off = off;
        made.enforced = enforced && !off;
        made.at = ngx_current_msec;
        made.has_record = false;
        made.fails_open = false;
        made.outcome = off || !has_realm ? verdict::store_error : examine(r, conf, made);
        made.let_in = !off && (lets_in(made.outcome) || (conf.fail_open != 0 && made.fails_open));
    }

    made.under_way = false;

    if (made.was_asked_for) {
        made.has_record = false;
        made.off = false;
        made.let_in = false;
        made.outcome = verdict::store_error;
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "realm, token or scope of \"auth_pat\" depends on a variable that it sets itself");
        return false;
    }
    if (!has_realm) {
        return false;
    }

    if (conf.require != nullptr && made.let_in && made.outcome != verdict::preflight && !off) {
        demand_required(r, made);
    }
    return true;
}

/// Why a token is refused, as the end of a sentence that starts with the token.
[[nodiscard]] const char *reason(verdict outcome) noexcept
{
    switch (outcome) {
    case verdict::malformed: return "is malformed";
    case verdict::unknown: return "is unknown";
    case verdict::revoked: return "was revoked";
    case verdict::expired: return "expired";
    case verdict::not_yet_valid: return "is not yet valid";
    case verdict::address_denied: return "may not be used from this address";
    case verdict::scope_denied: return "lacks a scope";
    case verdict::require_denied: return "does not meet a requirement";
    case verdict::stale:
    case verdict::store_error: return "could not be validated";
    case verdict::ok:
    case verdict::missing:
    case verdict::preflight:
    case verdict::anonymous: break;
    }
    return nullptr;
}

/// Writes to the log why a token is refused. `consequence` is what comes of it, with a comma in front.
void log_refusal(ngx_http_request_t *r, const decision &made, const char *consequence) noexcept
{
    const char *why = reason(made.outcome);

    if (made.outcome == verdict::missing) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "no access token was provided%s", consequence);
    } else if (why == nullptr) {
        return;
    } else if (made.has_record) {
        const ngx_str_t id = to_ngx(is_id(made.token.id) ? made.token.id : "?");
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "access token \"%V\" %s%s", &id, why, consequence);
    } else {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "access token %s%s", why, consequence);
    }
}

/// What a refusal tells the client (RFC 6750, section 3), besides the realm.
struct refusal {
    ngx_int_t status;
    std::string_view parameters;
};

[[nodiscard]] refusal refusal_for(const decision &made) noexcept
{
    switch (made.outcome) {
    case verdict::ok:
    case verdict::stale:
    case verdict::store_error:
    case verdict::preflight:
    case verdict::anonymous: break;
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
    case verdict::require_denied:
        if (!made.has_record) {
            return {made.require_status, ""};
        }
        return {made.require_status, made.require_status == NGX_HTTP_UNAUTHORIZED
                                         ? ", error=\"invalid_token\", "
                                           "error_description=\"The access token does not meet a requirement\""
                                         : ", error=\"insufficient_scope\""};
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
    made.has_challenged = true;

    return NGX_OK;
}

[[nodiscard]] ngx_int_t refuse(ngx_http_request_t *r, decision &made, std::string_view realm) noexcept
{
    log_refusal(r, made, "");

    const refusal answer = refusal_for(made);

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

    // Another status than these, which auth_pat_require may give, has no challenge (RFC 9110, section 11.6.1).
    if (answer.status == NGX_HTTP_UNAUTHORIZED || answer.status == NGX_HTTP_FORBIDDEN) {
        const bool is_about_scopes = made.outcome == verdict::scope_denied;
        if (challenge(r, made, realm, answer.parameters,
                      is_about_scopes ? made.request.required : std::span<const scope_requirement>{})
            != NGX_OK) {
            return NGX_ERROR;
        }
    }
    return answer.status;
}

/// Takes back what an answer of a location where the request was refused would have had.
void take_back_headers(decision &made) noexcept
{
    for (ngx_table_elt_t *header : {made.challenge, made.retry_after}) {
        if (header != nullptr) {
            header->hash = 0;
        }
    }
    made.retry_after = nullptr;
}

/// What is counted about a decision.
struct countable {
    verdict outcome;
    bool let_in;
    bool is_dry_refusal;
    const store_conf *used_store;  ///< nullptr: no token was used
    std::string_view used_id;

    bool operator==(const countable &) const noexcept = default;
};

[[nodiscard]] countable describe(const decision &made) noexcept
{
    const bool is_use = made.let_in && made.has_record;
    return {made.outcome, made.let_in, made.conf->dry_run != 0 && !made.let_in, is_use ? made.conf->store : nullptr,
            is_use ? made.token.id : std::string_view{}};
}

/// Counts a decision. Of a request that comes to the access phase again, by way of an index or an error page, it counts
/// only what is new.
void count(ngx_http_request_t *r, const decision &made, const std::optional<countable> &before,
           counters &counts) noexcept
{
    const countable now = describe(made);
    if (before == now) {
        return;
    }
    if (now.is_dry_refusal) {
        counts.dry_run[index_of(now.outcome)]++;
        return;
    }

    counts.requests[index_of(now.outcome)]++;
    if (made.let_in && made.fails_open) {
        counts.fail_open++;
    }
    if (now.used_store != nullptr) {
        count_use(r, *now.used_store, now.used_id, made.request.peer);
    }
}

/// Lets a request in.
[[nodiscard]] ngx_int_t admit(ngx_http_request_t *r, decision &made) noexcept
{
    const loc_conf &conf = *made.conf;

    take_back_headers(made);

    if (made.fails_open) {
        ngx_log_error(NGX_LOG_CRIT, r->connection->log, 0,
                      "auth_pat_fail_open lets a request in whose token could not be validated");
    }

    const bool has_token = made.outcome != verdict::anonymous && made.outcome != verdict::preflight;
    if (conf.recheck != nullptr && has_token && conf.dry_run == 0) {
        enter(*conf.recheck, r, made);
    }

    // With `satisfy any`, a yes would settle it: others must be asked about somebody without a token, and a dry run
    // settles nothing.
    return conf.dry_run != 0 || made.outcome == verdict::anonymous ? NGX_DECLINED : NGX_OK;
}

/// Does what follows from a decision: counts it, and lets the request in or refuses it. Without a realm it could not be
/// made. Inline, as every request comes here.
[[nodiscard, gnu::always_inline]] inline ngx_int_t
conclude(ngx_http_request_t *r, decision &made, const std::optional<countable> &before, const ngx_str_t *realm) noexcept
{
    leave(made.place);
    if (counters *counts = made.never_made ? nullptr : counters_of(r)) {
        count(r, made, before, *counts);
    }

    if (made.let_in) {
        return admit(r, made);
    }
    if (made.conf->dry_run != 0) {
        log_refusal(r, made, ", dry run");
        take_back_headers(made);
        return NGX_DECLINED;
    }
    return realm != nullptr ? refuse(r, made, view(*realm)) : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

/// The same for a decision that was changed after the access phase. Another module than this one may have let the
/// request in, too, but is not asked again.
[[nodiscard]] ngx_int_t conclude_again(ngx_http_request_t *r, decision &made, const countable &before) noexcept
{
    forget_variables(r);

    ngx_str_t realm;
    const bool has_realm = ngx_http_complex_value(r, made.conf->realm, &realm) == NGX_OK;
    const ngx_int_t status = conclude(r, made, before, has_realm ? &realm : nullptr);
    return status == NGX_ERROR ? NGX_HTTP_INTERNAL_SERVER_ERROR : status;
}

[[nodiscard]] const loc_conf &conf_of(ngx_http_request_t *r) noexcept
{
    return *static_cast<const loc_conf *>(ngx_http_get_module_loc_conf(r, ngx_http_auth_pat_module));
}

/// A tunnel (CONNECT, since nginx 1.31) is not one request, and its credentials are those for a proxy
/// (Proxy-Authorization): no token can stand for what goes through it.
[[nodiscard]] ngx_int_t refuse_tunnel(ngx_http_request_t *r, const loc_conf &conf) noexcept
{
    ngx_str_t realm;
    if (ngx_http_complex_value(r, conf.realm, &realm) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (turns_off(conf, realm)) {
        return NGX_DECLINED;
    }
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "\"auth_pat\" refuses CONNECT%s",
                  conf.dry_run != 0 ? ", dry run" : "");
    return conf.dry_run != 0 ? NGX_DECLINED : NGX_HTTP_NOT_ALLOWED;
}

/// Whether nginx could not make sense of the request, and has refused it without asking any phase. Its error page may
/// be asked for like another request.
[[nodiscard]] bool is_unread(ngx_http_request_t *r) noexcept
{
    return progress_of(r) == progress::unread;
}

/// A limit that has counted a request may have asked who sent it.
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
    const loc_conf &conf = conf_of(r);

    if (conf.realm == nullptr) {
        return NGX_DECLINED;
    }

    if (r->method == NGX_HTTP_CONNECT) {
        return refuse_tunnel(r, conf);
    }

    // A decision that a variable asked for before this phase does not count: the token, the address and the scopes that
    // are needed may have changed since, or the token may have been revoked while limit_req held the request up.
    decision *made = find_decision(r);
    std::optional<countable> before;
    if (made != nullptr) {
        if (made->enforced) {
            before = describe(*made);
        }
        made->has_challenged = false;
        forget_variables(r);
    } else if ((made = make_room(r)) == nullptr) {
        return NGX_ERROR;
    }

    ngx_str_t realm;
    const bool is_made = make_decision(r, conf, true, realm, *made);
    if (is_unread(r)) {
        // The decision is about the error page, and tells nothing about the request.
        made->never_made = true;
        forget_variables(r);
    }
    if (is_made && turns_off(conf, realm)) {
        return NGX_DECLINED;
    }

    return conclude(r, *made, before, is_made ? &realm : nullptr);
}

decision *find_kept_decision(ngx_http_request_t *r) noexcept
{
    for (ngx_pool_cleanup_t *cleanup = r->pool->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == end_decision) {
            auto *made = static_cast<decision *>(cleanup->data);
            ngx_http_set_ctx(r, made, ngx_http_auth_pat_module);
            if (r->filter_finalize) {  // which has thrown the headers of the response away
                made->challenge = nullptr;
                made->retry_after = nullptr;
            }
            return made;
        }
    }
    return nullptr;
}

ngx_int_t decide_again(ngx_http_request_t *r, decision &made) noexcept
{
    const loc_conf &conf = *made.conf;
    const countable before = describe(made);

    const finding found = look_up(conf, made.key, made.request, allocate_record, r->pool, made.token);
    if (found.is_of_store || found.problem) {
        log_store(r->connection->log, conf, found);
    }

    made.at = ngx_current_msec;
    made.has_record = found.found;
    made.fails_open = found.is_of_store;
    made.outcome = found.outcome;
    made.let_in = lets_in(made.outcome) || (conf.fail_open != 0 && made.fails_open);

    // In another location, where a redirect has led, what is required may have another value.
    if (conf.require != nullptr && made.let_in && &conf == &conf_of(r)) {
        forget_variables(r);
        demand_required(r, made);
    }
    return conclude_again(r, made, before);
}

ngx_int_t recheck_or_refuse(ngx_http_request_t *r, decision &made) noexcept
{
    const countable before = describe(made);

    made.at = ngx_current_msec;
    return recheck(r, made) ? NGX_OK : conclude_again(r, made, before);
}

ngx_int_t handle_log(ngx_http_request_t *r) noexcept
{
    if (r != r->main || conf_of(r).realm == nullptr) {
        return NGX_OK;
    }

    const decision *made = find_decision(r);
    if (made != nullptr) {
        const bool is_past = made->enforced || progress_of(r) == progress::past_access;
        if (is_past || (made->was_asked_early && was_limited(r))) {
            return NGX_OK;
        }
        forget_variables(r);
    }
    ngx_http_set_ctx(r, const_cast<decision *>(&no_decision), ngx_http_auth_pat_module);
    return NGX_OK;
}

bool recheck(ngx_http_request_t *r, decision &made) noexcept
{
    const loc_conf &conf = *made.conf;

    // Not in the request's pool, which would grow for as long as the request lasts.
    record_buffer memory;
    const auto allocate_once = [](void *buffer, std::size_t) noexcept -> void * {
        return static_cast<record_buffer *>(buffer)->data();
    };

    record token;
    const finding found = look_up(conf, made.key, made.request, allocate_once, &memory, token);
    if (found.outcome == verdict::ok || (conf.fail_open != 0 && found.is_of_store)) {
        return true;
    }

    log_store(r->connection->log, conf, found);
    made.outcome = found.outcome;
    made.let_in = false;
    forget_variables(r);
    return false;
}

void close_request(ngx_http_request_t *r, const decision &made, bool is_news) noexcept
{
    ngx_connection_t *connection = r->connection;

    if (is_news) {
        if (counters *counts = counters_of(r)) {
            counts->closed[index_of(made.outcome)]++;
        }
        log_refusal(r, made, ", closing its request");
    }

#if (NGX_HTTP_V2 || NGX_COMPAT)
    if (r->stream != nullptr) {
        // nginx leaves the end of a stream in the queue as long as other streams go on.
        ngx_post_event(r->stream->connection->connection->write, &ngx_posted_events);
    }
#endif

    // As `return 444` does: the connection, or the stream, ends at once, and the access log has the status that was
    // sent, or 444. What is cleaned up first, like a connection to an upstream, must not end the request by itself
    // (ngx_http_request_handler() terminates in the same way).
    r->main->count++;
    ngx_http_finalize_request(r, NGX_HTTP_CLOSE);
    ngx_http_run_posted_requests(connection);
}

const decision *current_decision(ngx_http_request_t *r) noexcept
{
    r = r->main;

    const loc_conf &conf = conf_of(r);

    decision *made = find_decision(r);
    if (made != nullptr && made->under_way) {
        made->was_asked_for = true;
        return nullptr;
    }
    if (made != nullptr && made->never_made) {
        return &no_decision;
    }
    if (made != nullptr && (made->enforced || made->conf == &conf)) {
        return made;
    }
    if (is_unread(r)) {
        return &no_decision;
    }
    if (made == nullptr && (made = make_room(r)) == nullptr) {
        return nullptr;
    }
    if (r->err_status == 0 && r->headers_out.status == 0) {
        made->was_asked_early = true;
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
