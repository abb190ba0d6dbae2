#pragma once

#include "core/pat_digest.h"
#include "nginx/pat_ngx.h"

namespace pat::store {
class reader;
}

/// The configuration of the module. It is complete when the directives have been read, and const for requests.
namespace pat::ngx {

/// Where a directive stands, for messages about it that come later.
struct directive_place {
    ngx_str_t file;
    ngx_uint_t line;
};

/// `auth_pat_store`, once for each path.
struct store_conf {
    ngx_str_t path;  ///< of the folder; terminated
    std::size_t map_size;
    directive_place place;

    /// Set in the process that serves (pat_registry.h), and nowhere else.
    store::reader *reader;
};

/// `auth_pat_pepper_file`, once for each path.
struct pepper_conf {
    ngx_str_t path;
    hasher make_digest;
};

/// A store and the way its digests must have been made, as some location uses them.
struct store_use {
    store_conf *store;
    const hasher *make_digest;
    directive_place place;
};

struct main_conf {
    ngx_array_t stores;   ///< of store_conf *
    ngx_array_t peppers;  ///< of pepper_conf *
    ngx_array_t uses;     ///< of store_use
    hasher plain;         ///< for stores without a pepper
};

/// `auth_pat_require_scope`.
struct scope_conf {
    ngx_http_complex_value_t scopes;  ///< separated by spaces
    bool any;
};

struct loc_conf {
    ngx_http_complex_value_t *realm;  ///< nullptr: off
    ngx_http_complex_value_t *token;  ///< nullptr: the Bearer credential
    directive_place place;            ///< of `auth_pat`
    store_conf *store;
    const hasher *make_digest;
    ngx_str_t prefix;  ///< empty: any token
    time_t leeway;
    ngx_array_t *require_scope;  ///< of scope_conf, or nullptr
};

}  // namespace pat::ngx
