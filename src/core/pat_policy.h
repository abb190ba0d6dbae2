#pragma once

#include "core/pat_address.h"
#include "core/pat_record.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

/// The policy: pure functions of a record, the facts of a request, and the time.
namespace pat {

enum class access_verdict : std::uint8_t {
    ok,
    missing,    ///< no token was presented
    malformed,  ///< what was presented cannot be a token
    unknown,    ///< the store does not hold it
    revoked,
    expired,
    not_yet_valid,
    address_denied,  ///< used from an address outside its cidrs
    scope_denied,    ///< lacks a scope that is required here
    require_denied,  ///< another requirement is not met
    stale,           ///< would be let in, but the store may have missed its revocation
    store_error,     ///< the store or the record cannot be read
    preflight,       ///< a CORS preflight, which needs no token
    anonymous,       ///< no token was presented, and none is required here
};

inline constexpr std::size_t verdict_count = static_cast<std::size_t>(access_verdict::anonymous) + 1;

/// The name of a verdict in `$auth_pat_status` and in patctl's output.
[[nodiscard]] std::string_view name(access_verdict verdict) noexcept;

/// Whether a verdict lets the request in.
[[nodiscard]] constexpr bool lets_in(access_verdict verdict) noexcept
{
    return verdict == access_verdict::ok || verdict == access_verdict::preflight
           || verdict == access_verdict::anonymous;
}

/// How far a heartbeat may seem to be in the future, in seconds: processes read the clock at different moments.
inline constexpr std::int64_t heartbeat_tolerance = 5;

/// Whether a store may have missed a revocation: its heartbeat is older than `max_age` seconds (0: no limit), in the
/// future, or absent. Times are in Unix seconds.
[[nodiscard]] bool is_stale(std::int64_t heartbeat, std::int64_t max_age, std::int64_t now) noexcept;

/// Requires all of `scopes` (separated by spaces) of a token, or any of them; nothing if there are none.
struct scope_requirement {
    std::string_view scopes;
    bool any = false;
};

/// Takes the next scope off `scopes`, which are separated by spaces; empty if none is left.
[[nodiscard]] std::string_view take_scope(std::string_view &scopes) noexcept;

[[nodiscard]] bool satisfies(std::string_view granted, const scope_requirement &required) noexcept;

/// The facts about a request that the policy uses, besides its token.
struct facts {
    address peer;
    std::span<const scope_requirement> required;  ///< all of them must hold
    std::int64_t leeway = 0;                      ///< seconds of clock skew allowed on expiry and not-before
};

/// Decides about a token: revoked before expired before not-yet-valid before address before scope. `now` is in Unix
/// seconds; a token is valid at `expires_at - 1` and expired at `expires_at`, valid at `not_before`. A token whose
/// subject is not sendable is revoked: an upstream would take the subject for another one, or for none.
[[nodiscard]] access_verdict decide(const token_record &token, const facts &request, std::int64_t now) noexcept;

/// Finds the value of the claim with this name, if the token has it.
[[nodiscard]] std::optional<std::string_view> find_claim(const token_record &token, std::string_view name) noexcept;

}  // namespace pat
