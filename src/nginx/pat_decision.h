#pragma once

#include "core/pat_policy.h"
#include "nginx/pat_conf.h"
#include "nginx/pat_recheck.h"
#include "nginx/pat_variables.h"
#include "store/pat_fault.h"

#include <cstdint>

/// From what a request presents to a verdict, in three steps: gather what is needed (realm, credential, required
/// scopes), decide about it in one call that leads down to the store and the policy, and settle the decision. What
/// follows from it is done in pat_access.cpp.
namespace pat::ngx {

/// How far a decision has come, and what it counts for.
///
/// States:
///
///     none         Nothing has been decided.
///     deciding     Realm, token and scopes are being evaluated: a variable that asks now asks about itself.
///     circular     One has asked.
///     weighing     The token is decided. The values of auth_pat_require are being evaluated, and may ask for it.
///     off          Validation is off in this location; the rest of the decision says nothing.
///     provisional  Decided because a variable asked. Counts for the location it was asked in.
///     enforced     Decided by the access phase. Counts until that phase comes again, wherever a redirect leads.
///     parked       Enforced and let in, but the request waits for the rest of its body.
///     challenged   Enforced and refused, and the response has the challenge.
///
/// Transitions, of which a request that comes to another location goes through more than one round:
///
///     any        ─▶ deciding                  begin()
///     deciding   ─▶ circular                  ask()
///     deciding   ─▶ weighing                  weigh()
///     deciding   ─▶ off                       turn_off(); what was enforced before stays enforced
///     circular   ─▶ enforced or provisional   settle()
///     weighing   ─▶ enforced or provisional   settle()
///     enforced   ─▶ parked                    park()
///     parked     ─▶ enforced                  renew()
///     enforced   ─▶ challenged                challenge()
class decision_state {
public:
    [[nodiscard]] bool is_none() const noexcept { return now_ == state::none; }
    [[nodiscard]] bool is_deciding() const noexcept { return now_ == state::deciding || now_ == state::circular; }
    [[nodiscard]] bool is_circular() const noexcept { return now_ == state::circular; }
    [[nodiscard]] bool is_weighing() const noexcept { return now_ == state::weighing; }
    [[nodiscard]] bool is_off() const noexcept { return now_ == state::off; }
    [[nodiscard]] bool is_enforced() const noexcept { return now_ >= state::enforced; }
    [[nodiscard]] bool is_parked() const noexcept { return now_ == state::parked; }
    [[nodiscard]] bool is_challenged() const noexcept { return now_ == state::challenged; }

    void begin() noexcept
    {
        was_enforced_ = is_enforced();
        now_ = state::deciding;
    }
    void ask() noexcept { now_ = state::circular; }
    void weigh() noexcept { now_ = state::weighing; }
    void turn_off() noexcept { now_ = was_enforced_ ? state::enforced : state::off; }
    void settle(bool enforced) noexcept { now_ = enforced ? state::enforced : state::provisional; }
    void park() noexcept { now_ = state::parked; }
    void renew() noexcept { now_ = state::enforced; }
    void challenge() noexcept { now_ = state::challenged; }

private:
    enum class state : std::uint8_t {
        none,
        deciding,
        circular,
        weighing,
        off,
        provisional,
        enforced,
        parked,
        challenged
    };

    state now_ = state::none;
    bool was_enforced_ = false;  ///< before begin()
};

/// What the store and the policy say about a token.
struct finding {
    access_verdict verdict;
    bool is_about_store;  ///< the verdict tells something about the store, and not about the token or this request
    bool has_record;
    store::fault problem;  ///< behind a store_error
    std::int64_t heartbeat;
};

/// What was decided about a request. It survives internal redirects.
struct access_decision {
    decision_state state;
    bool was_asked_early;  ///< by a variable, before nginx began to answer
    bool has_record;
    bool let_in;      ///< by the verdict, or in spite of it (auth_pat_fail_open)
    bool fails_open;  ///< the verdict is about the store, and not about the token
    access_verdict verdict;
    const loc_conf *conf;      ///< under which it was made
    ngx_int_t require_status;  ///< of the answer, if the verdict is require_denied
    ngx_msec_t decided_at;     ///< ngx_current_msec of that time
    token_record token;        ///< if `has_record`; the token may be expired, revoked, or not sufficient
    token_key key;             ///< of what was presented
    facts request;
    recheck_link link;
    ngx_table_elt_t *retry_after;  ///< as it stands in the response
    ngx_table_elt_t *challenge;    ///< WWW-Authenticate, as it stands in the response
};

/// Adds an empty decision to a request; nullptr if there is no memory.
[[nodiscard]] access_decision *add_decision(ngx_http_request_t *r) noexcept;

/// Makes a decision under `conf`, which has a realm; `enforced` if the access phase does. False if it cannot be made:
/// there is no memory, or a realm, token or scope depends on a variable of ours. nginx would take such a variable for
/// empty, and an empty scope demands nothing.
[[nodiscard]] bool make_decision(ngx_http_request_t *r, const loc_conf &conf, bool enforced, ngx_str_t &realm,
                                 access_decision &decision) noexcept;

/// Makes it again for a request that was let in for its token, from what the store says now.
void renew_decision(ngx_http_request_t *r, access_decision &decision) noexcept;

/// Validation can be turned off by the value of the realm, too.
[[nodiscard]] inline bool turns_off(const loc_conf &conf, const ngx_str_t &realm) noexcept
{
    return conf.realm->lengths != nullptr && view(realm) == "off";
}

/// Finds the decision of a request whose contexts were wiped, if it has one. Its pool is still there
/// (ngx_http_realip_module finds its own in the same way).
[[nodiscard]] access_decision *find_kept_decision(ngx_http_request_t *r) noexcept;

/// The decision that was made for this request before, if any. An internal redirect wipes the request's contexts.
[[nodiscard]] inline access_decision *find_decision(ngx_http_request_t *r) noexcept
{
    auto *decision = static_cast<access_decision *>(ngx_http_get_module_ctx(r, ngx_http_auth_pat_module));
    return decision == nullptr && (r->internal || r->filter_finalize) ? find_kept_decision(r) : decision;
}

/// Looks again at the token of a request that was let in and is not over. False if it is not to go on; the decision
/// then says why.
[[nodiscard]] bool recheck(ngx_http_request_t *r, access_decision &decision) noexcept;

/// The decision that counts for a variable: the one that was enforced last, or else one made now for the location the
/// request is in; an empty one if nginx has answered before the access phase. For a subrequest it is that of the main
/// request. nullptr if there is no memory, or if what is asked for is part of what the decision is made from.
[[nodiscard]] const access_decision *current_decision(ngx_http_request_t *r) noexcept;

}  // namespace pat::ngx
