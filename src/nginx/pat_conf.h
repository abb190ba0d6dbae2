#pragma once

#include "core/pat_bytes.h"
#include "core/pat_digest.h"
#include "core/pat_token.h"
#include "nginx/pat_ngx.h"

#include <algorithm>
#include <cstdint>

namespace pat::store {
class reader;
}

/// The configuration of the module: complete once the directives have been read, and const for requests.
namespace pat::ngx {

/// Where a directive stands, for messages that are logged later.
struct directive_location {
    ngx_str_t file;
    ngx_uint_t line;
};

/// `auth_pat_store`, once for each path.
struct store_conf {
    ngx_str_t path;  ///< of the folder; null-terminated
    std::size_t map_size;
    directive_location location;

    std::uint32_t number;  ///< in the zone; 0 without a zone, or without room in it

    /// Set only in a process that serves (pat_stores.h).
    store::reader *reader;
};

/// `auth_pat_pepper_file`, once for each path.
struct pepper_conf {
    ngx_str_t path;
    token_hasher make_digest;
};

/// A store and the hasher that some location uses it with.
struct store_use {
    store_conf *store;
    const token_hasher *make_digest;
    directive_location location;
};

struct zone_conf;
struct recheck_queue;

struct main_conf {
    ngx_array_t stores;    ///< of store_conf *
    ngx_array_t peppers;   ///< of pepper_conf *
    ngx_array_t uses;      ///< of store_use
    ngx_array_t rechecks;  ///< of recheck_queue *
    token_hasher plain;    ///< for stores without a pepper
    zone_conf *zone;       ///< nullptr without auth_pat_zone
    ngx_int_t progress;    ///< index of the request's progress in r->variables (pat_variables.h)
};

struct srv_conf {
    ngx_uint_t number;  ///< of its name in the zone, if any
};

/// `auth_pat_require_scope`.
struct scope_conf {
    ngx_http_complex_value_t scopes;  ///< separated by spaces
    bool any;
};

/// `auth_pat_require`.
struct require_conf {
    ngx_array_t values;  ///< of ngx_http_complex_value_t
    ngx_int_t status;    ///< of the refusal
};

/// Where a token may be, of the parameters of `auth_pat`.
struct source_conf {
    credential_schemes schemes;  ///< of the Authorization header
    ngx_array_t *headers;        ///< names in lower case (ngx_str_t) of headers that hold a token alone, or nullptr
    ngx_http_complex_value_t *token;  ///< or nullptr

    /// Whether an Authorization header is a credential, even one with another scheme. With `token=` alone it is not.
    [[nodiscard]] bool has_authorization() const noexcept { return schemes.any() || headers != nullptr; }
};

/// Whether a program that makes variables of headers (CGI, WSGI, nginx itself) may make the same one of `other` as of
/// `name`, one of source_conf::headers: it replaces what a variable's name cannot have.
[[nodiscard]] inline bool is_same_variable(std::string_view name, std::string_view other) noexcept
{
    constexpr byte_set kept{"abcdefghijklmnopqrstuvwxyz0123456789"};

    return std::ranges::equal(name, other, [&](char c, char d) { return c == d || (c == '-' && !kept.has(d)); });
}

enum class status_format : ngx_uint_t { by_accept, json, prometheus, html };

struct loc_conf {
    ngx_http_complex_value_t *realm;  ///< nullptr: off
    source_conf sources;
    directive_location location;  ///< of `auth_pat`
    store_conf *store;
    const token_hasher *make_digest;
    ngx_str_t prefix;  ///< empty: any token
    time_t leeway;
    ngx_array_t *require_scope;  ///< of scope_conf, or nullptr
    ngx_array_t *require;        ///< of require_conf, or nullptr
    ngx_flag_t optional;
    ngx_uint_t pass_preflight;
    ngx_flag_t dry_run;
    time_t max_age;  ///< seconds; 0: no limit
    ngx_flag_t fail_open;
    recheck_queue *recheck;  ///< nullptr: never

    bool has_status;
    status_format status;
    bool is_usage;
    directive_location usage_location;
};

/// The configuration being read.
[[nodiscard]] inline main_conf &main_conf_of(ngx_conf_t *cf) noexcept
{
    return *static_cast<main_conf *>(ngx_http_conf_get_module_main_conf(cf, ngx_http_auth_pat_module));
}

/// The configuration of a cycle; nullptr if it has no `http`.
[[nodiscard]] inline const main_conf *main_conf_of(const ngx_cycle_t *cycle) noexcept
{
    return static_cast<const main_conf *>(ngx_http_cycle_get_module_main_conf(cycle, ngx_http_auth_pat_module));
}

[[nodiscard]] inline const main_conf &main_conf_of(const ngx_http_request_t *r) noexcept
{
    return *static_cast<const main_conf *>(ngx_http_get_module_main_conf(r, ngx_http_auth_pat_module));
}

[[nodiscard]] inline const srv_conf &srv_conf_of(const ngx_http_request_t *r) noexcept
{
    return *static_cast<const srv_conf *>(ngx_http_get_module_srv_conf(r, ngx_http_auth_pat_module));
}

[[nodiscard]] inline const loc_conf &loc_conf_of(const ngx_http_request_t *r) noexcept
{
    return *static_cast<const loc_conf *>(ngx_http_get_module_loc_conf(r, ngx_http_auth_pat_module));
}

}  // namespace pat::ngx
