#include "nginx/pat_variables.h"

#include "core/pat_bytes.h"
#include "core/pat_record.h"
#include "nginx/pat_access.h"
#include "store/pat_reader.h"

#include <cstdint>
#include <optional>

namespace pat::ngx {

namespace {

constexpr std::string_view claim_variable_prefix = "auth_pat_claim_";

enum class field : uintptr_t { status, id, subject, name, scope, expires, expires_in };

constexpr std::string_view dry_run_suffix = "_dry_run";

/// A value; nothing if the variable is empty.
using value = std::optional<std::string_view>;

[[nodiscard]] ngx_int_t answer(ngx_http_variable_value_t *v, const value &text) noexcept
{
    if (!text) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = reinterpret_cast<u_char *>(const_cast<char *>(text->data()));
    v->len = static_cast<unsigned>(text->size());
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    return NGX_OK;
}

/// Returns a text of a record, or nothing if the writer would not accept it: whoever can write the store must not be
/// able to forge headers and log lines.
[[nodiscard]] value checked(std::string_view text) noexcept
{
    return has_control(text) ? std::nullopt : value{text};
}

/// Writes a number into the request's pool; nothing if out of memory.
[[nodiscard]] value number(ngx_http_request_t *r, std::int64_t n) noexcept
{
    auto *digits = allocate<u_char>(r->pool, NGX_INT64_LEN);
    if (digits == nullptr) {
        return std::nullopt;
    }
    const u_char *end = ngx_sprintf(digits, "%L", n);
    return view({static_cast<std::size_t>(end - digits), digits});
}

/// Whether the token identifies the client, which only one that let its request in does: an expired or revoked one must
/// not identify anybody to an upstream or a rate limit. Its id alone is available, for logs.
[[nodiscard]] bool identifies(const access_decision &decision) noexcept
{
    return !decision.state.is_off() && decision.has_record && decision.let_in;
}

[[nodiscard]] value status_of(ngx_http_request_t *r, const access_decision &decision) noexcept
{
    if (decision.state.is_off()) {
        return "off";
    }
    if (decision.state.is_none()) {
        return "-";
    }

    const std::string_view text = name(decision.verdict);
    if (decision.let_in || decision.lcf->dry_run == 0) {
        return text;
    }

    auto *suffixed = allocate<u_char>(r->pool, text.size() + dry_run_suffix.size());
    if (suffixed == nullptr) {
        return std::nullopt;
    }
    ngx_memcpy(suffixed, text.data(), text.size());
    ngx_memcpy(suffixed + text.size(), dry_run_suffix.data(), dry_run_suffix.size());
    return view({text.size() + dry_run_suffix.size(), suffixed});
}

[[nodiscard]] value value_of(ngx_http_request_t *r, field wanted, const access_decision &decision) noexcept
{
    if (wanted == field::status) {
        return status_of(r, decision);
    }
    if (wanted == field::id && !decision.state.is_off() && decision.has_record) {
        return is_id(decision.token.id) ? value{decision.token.id} : std::nullopt;
    }
    if (!identifies(decision)) {
        return std::nullopt;
    }

    const token_record &token = decision.token;

    switch (wanted) {
    case field::status:
    case field::id: break;
    case field::subject: return checked(token.subject);
    case field::name: return checked(token.name);
    case field::scope: return checked(token.scopes);
    case field::expires: return token.expires_at == 0 ? std::nullopt : number(r, token.expires_at);
    case field::expires_in: return token.expires_at == 0 ? std::nullopt : number(r, token.expires_at - ngx_time());
    }
    return std::nullopt;
}

ngx_int_t get_field(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data) noexcept
{
    const access_decision *decision = current_decision(r);
    if (decision == nullptr) {
        return NGX_ERROR;
    }
    return answer(v, value_of(r, static_cast<field>(data), *decision));
}

/// `data` is the whole name of the variable (nginx's convention for NGX_HTTP_VAR_PREFIX).
ngx_int_t get_claim(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data) noexcept
{
    const access_decision *decision = current_decision(r);
    if (decision == nullptr) {
        return NGX_ERROR;
    }

    const std::string_view variable = view(*reinterpret_cast<const ngx_str_t *>(data));
    const value claim = identifies(*decision)
                            ? find_claim(decision->token, tail(variable, claim_variable_prefix.size()))
                            : std::nullopt;
    return answer(v, claim ? checked(*claim) : std::nullopt);
}

/// Seconds since the source of the location's store was last reached, even if the location validates no tokens.
ngx_int_t get_store_age(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t) noexcept
{
    const loc_conf &lcf = loc_conf_of(r);
    const bool is_open = lcf.store != nullptr && lcf.store->reader != nullptr;
    const std::int64_t heartbeat = is_open ? lcf.store->reader->heartbeat() : 0;

    return answer(v, heartbeat == 0 ? std::nullopt : number(r, ngx_time() - heartbeat));
}

struct variable_entry {
    std::string_view name;
    ngx_http_get_variable_pt get;
    uintptr_t data;
    ngx_uint_t flags;
};

constexpr variable_entry variables[] = {
    {"auth_pat_status", get_field, static_cast<uintptr_t>(field::status), 0},
    {"auth_pat_id", get_field, static_cast<uintptr_t>(field::id), 0},
    {"auth_pat_subject", get_field, static_cast<uintptr_t>(field::subject), 0},
    {"auth_pat_name", get_field, static_cast<uintptr_t>(field::name), 0},
    {"auth_pat_scope", get_field, static_cast<uintptr_t>(field::scope), 0},
    {"auth_pat_expires", get_field, static_cast<uintptr_t>(field::expires), 0},
    {"auth_pat_expires_in", get_field, static_cast<uintptr_t>(field::expires_in), 0},
    {"auth_pat_store_age", get_store_age, 0, 0},
    {claim_variable_prefix, get_claim, 0, NGX_HTTP_VAR_PREFIX},
};

}  // namespace

ngx_int_t add_variables(ngx_conf_t *cf) noexcept
{
    // A name that no configuration can use.
    ngx_str_t unnamed = to_ngx("auth_pat progress");
    ngx_http_variable_t *slot = ngx_http_add_variable(cf, &unnamed, NGX_HTTP_VAR_NOHASH);
    if (slot == nullptr) {
        return NGX_ERROR;
    }
    slot->get_handler = [](ngx_http_request_t *, ngx_http_variable_value_t *v, uintptr_t) -> ngx_int_t {
        return answer(v, std::nullopt);
    };
    main_conf &mcf = main_conf_of(cf);
    mcf.progress = ngx_http_get_variable_index(cf, &unnamed);
    if (mcf.progress == NGX_ERROR) {
        return NGX_ERROR;
    }

    for (const variable_entry &entry : variables) {
        ngx_str_t name = to_ngx(entry.name);

        // Not cacheable by nginx, as a decision may change. The module keeps the decision itself.
        ngx_http_variable_t *added = ngx_http_add_variable(cf, &name, entry.flags | NGX_HTTP_VAR_NOCACHEABLE);
        if (added == nullptr) {
            return NGX_ERROR;
        }
        added->get_handler = entry.get;
        added->data = entry.data;
    }
    return NGX_OK;
}

void forget_variables(ngx_http_request_t *r) noexcept
{
    const auto *cmcf = static_cast<ngx_http_core_main_conf_t *>(ngx_http_get_module_main_conf(r, ngx_http_core_module));
    const auto indexed = items<ngx_http_variable_t>(cmcf->variables);

    for (ngx_uint_t i = 0; i < cmcf->variables.nelts; i++) {
        if (indexed[i].get_handler == get_field || indexed[i].get_handler == get_claim) {
            r->variables[i].valid = 0;
            r->variables[i].not_found = 0;
        }
    }
}

}  // namespace pat::ngx
