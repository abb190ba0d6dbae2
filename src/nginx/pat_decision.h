#pragma once

#include "core/pat_policy.h"
#include "nginx/pat_conf.h"
#include "nginx/pat_recheck.h"
#include "nginx/pat_variables.h"
#include "store/pat_fault.h"

#include <cstdint>

/// Turns what a request presents into a verdict, in three steps: gather (realm, credential, required scopes), decide,
/// in one call down to the store and the policy, and settle the decision. pat_access.cpp acts on it.
namespace pat::ngx {

/// How far a decision has come, and what it counts for.
///
/// States:
///
///     none         Nothing has been decided.
///     deciding     Realm, token and scopes are being evaluated. A variable of ours among them would depend on itself.
///     circular     There was such a variable.
///     weighing     The token is decided. The values of auth_pat_require are being evaluated, and may depend on it.
///     off          Validation is off in this location; the rest of the decision is meaningless.
///     provisional  Decided for a variable. Valid in the location where the variable was evaluated.
///     enforced     Decided by the access phase. Valid until that phase runs again, wherever a redirect leads.
///     parked       Enforced; let in to wait for the rest of its body.
///     challenged   Enforced and refused; the response carries the challenge.
///
/// Transitions. A request that is redirected to another location goes through them again:
///
///                begin(), from any state
///                          │
///                          ▼       ask()
///         ┌──────────── deciding ─────────▶ circular
///         │ turn_off()     │ weigh()            │
///         ▼                ▼                    │
///        off           weighing ────────────────┤
///                                               │ settle()
///                          ┌────────────────────┤
///                          ▼                    ▼        park()
///                     provisional           enforced ◀──────────▶ parked
///                                               │        renew()     │
///                                               │ challenge()        │
///                                               └───▶ challenged ◀───┘
///
/// A decision that was enforced before begin() is enforced or parked again after turn_off(). If a value cannot be
/// evaluated, settle() follows deciding. park() and renew() may come again. A refusal without a challenge, such as 503,
/// changes no state.
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
        before_ = now_;
        now_ = state::deciding;
    }
    void ask() noexcept { now_ = state::circular; }
    void weigh() noexcept { now_ = state::weighing; }
    void turn_off() noexcept
    {
        now_ = before_ < state::enforced ? state::off : before_ == state::parked ? state::parked : state::enforced;
    }
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
    state before_ = state::none;  ///< begin()
};

/// What the store and the policy say about a token.
struct finding {
    access_verdict verdict;
    bool is_about_store;  ///< the verdict is about the store, not about the token or the request
    bool has_record;
    store::fault problem;  ///< the cause of a store_error
    std::int64_t heartbeat;
};

/// The decision about a request. Survives internal redirects.
struct access_decision {
    decision_state state;
    bool was_asked_early;  ///< by a variable, before nginx began to answer
    bool has_record;
    bool let_in;      ///< by the verdict, or despite it (auth_pat_fail_open)
    bool fails_open;  ///< the verdict is about the store, not about the token
    access_verdict verdict;
    const loc_conf *lcf;       ///< under which it was made
    ngx_int_t require_status;  ///< of the response, if the verdict is require_denied
    ngx_msec_t decided_at;     ///< ngx_current_msec at that time
    token_record token;        ///< valid if `has_record`; may be expired, revoked or insufficient
    token_key key;             ///< of the presented token
    facts request;
    recheck_link link;
    ngx_table_elt_t *retry_after;       ///< in the response
    ngx_table_elt_t *bearer_challenge;  ///< WWW-Authenticate in the response
    ngx_table_elt_t *basic_challenge;   ///< another one
};

/// Adds an empty decision to a request; nullptr if out of memory.
[[nodiscard]] access_decision *add_decision(ngx_http_request_t *r) noexcept;

/// Makes a decision under `lcf`, which has a realm; `enforced` in the access phase. Returns false if the realm cannot
/// be evaluated, or if realm, token or a scope depends on a variable of ours: nginx would treat that variable as empty,
/// and an empty scope requires nothing.
[[nodiscard]] bool make_decision(ngx_http_request_t *r, const loc_conf &lcf, bool enforced, ngx_str_t &realm,
                                 access_decision &decision) noexcept;

/// Renews the decision about a request that was let in for its token, from the current contents of the store.
void renew_decision(ngx_http_request_t *r, access_decision &decision) noexcept;

/// Whether the value of the realm turns validation off.
[[nodiscard]] inline bool turns_off(const loc_conf &lcf, const ngx_str_t &realm) noexcept
{
    return lcf.realm->lengths != nullptr && view(realm) == "off";
}

/// Finds the decision of a request whose contexts were cleared, if it has one, by its cleanup in the request's pool (as
/// ngx_http_realip_module does).
[[nodiscard]] access_decision *find_kept_decision(ngx_http_request_t *r) noexcept;

/// The existing decision about this request, if any. An internal redirect clears the request's contexts.
[[nodiscard]] inline access_decision *find_decision(ngx_http_request_t *r) noexcept
{
    auto *decision = static_cast<access_decision *>(ngx_http_get_module_ctx(r, ngx_http_auth_pat_module));
    return decision == nullptr && (r->internal || r->filter_finalize) ? find_kept_decision(r) : decision;
}

/// Rechecks the token of a running request that was let in. Returns false if the request must not go on; the decision
/// then says why.
[[nodiscard]] bool recheck(ngx_http_request_t *r, access_decision &decision) noexcept;

/// The decision that the variables describe: the last one enforced, or else one made now for the current location; an
/// empty one if nginx has answered before the access phase. A subrequest uses that of its main request. Returns nullptr
/// if out of memory, or if the decision depends on the variable being evaluated.
[[nodiscard]] const access_decision *current_decision(ngx_http_request_t *r) noexcept;

}  // namespace pat::ngx
