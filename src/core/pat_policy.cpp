#include "core/pat_policy.h"

#include "core/pat_bytes.h"

#include <algorithm>

namespace pat {

namespace {

bool has_scope(std::string_view granted, std::string_view scope) noexcept
{
    while (!granted.empty()) {
        if (take_scope(granted) == scope) {
            return true;
        }
    }
    return false;
}

}  // namespace

std::string_view name(access_verdict verdict) noexcept
{
    switch (verdict) {
    case access_verdict::ok: return "ok";
    case access_verdict::missing: return "missing";
    case access_verdict::malformed: return "malformed";
    case access_verdict::unknown: return "unknown";
    case access_verdict::revoked: return "revoked";
    case access_verdict::expired: return "expired";
    case access_verdict::not_yet_valid: return "not_yet_valid";
    case access_verdict::address_denied: return "address_denied";
    case access_verdict::scope_denied: return "scope_denied";
    case access_verdict::require_denied: return "require_denied";
    case access_verdict::stale: return "stale";
    case access_verdict::store_error: return "store_error";
    case access_verdict::preflight: return "preflight";
    case access_verdict::anonymous: return "anonymous";
    }
    return "store_error";
}

bool is_stale(std::int64_t heartbeat, std::int64_t max_age, std::int64_t now) noexcept
{
    return max_age != 0 && (heartbeat == 0 || now - heartbeat > max_age || heartbeat - now > heartbeat_tolerance);
}

std::string_view take_scope(std::string_view &scopes) noexcept
{
    scopes.remove_prefix(std::min(scopes.find_first_not_of(' '), scopes.size()));

    const std::string_view scope = head(scopes, std::min(scopes.find(' '), scopes.size()));
    scopes.remove_prefix(scope.size());

    return scope;
}

bool satisfies(std::string_view granted, const scope_requirement &required) noexcept
{
    std::string_view rest = required.scopes;

    bool holds = true;
    for (std::string_view scope = take_scope(rest); !scope.empty(); scope = take_scope(rest)) {
        holds = has_scope(granted, scope);
        if (holds == required.any) {
            break;
        }
    }
    return holds;
}

access_verdict decide(const token_record &token, const facts &request, std::int64_t now) noexcept
{
    if (token.is_revoked() || !is_sendable(token.subject)) {
        return access_verdict::revoked;
    }

    if (token.expires_at != 0 && now - request.leeway >= token.expires_at) {
        return access_verdict::expired;
    }

    if (now + request.leeway < token.not_before) {
        return access_verdict::not_yet_valid;
    }

    if (!token.cidrs.empty() && !in_cidrs(token.cidrs, request.peer)) {
        return access_verdict::address_denied;
    }

    if (!std::all_of(request.required.begin(), request.required.end(),
                     [&](const scope_requirement &required) { return satisfies(token.scopes, required); })) {
        return access_verdict::scope_denied;
    }

    return access_verdict::ok;
}

std::optional<std::string_view> find_claim(const token_record &token, std::string_view name) noexcept
{
    for (auto rest = token.claims; !rest.empty();) {
        if (const token_claim claim = take_claim(rest); claim.name == name) {
            return claim.value;
        }
    }
    return std::nullopt;
}

}  // namespace pat
