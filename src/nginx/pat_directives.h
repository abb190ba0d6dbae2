#pragma once

#include "nginx/pat_ngx.h"

/// The directives (docs/directives.md) and the configurations that they fill.
namespace pat::ngx {

extern ngx_command_t directives[];

[[nodiscard]] void *create_main_conf(ngx_conf_t *cf) noexcept;
[[nodiscard]] void *create_srv_conf(ngx_conf_t *cf) noexcept;
[[nodiscard]] void *create_loc_conf(ngx_conf_t *cf) noexcept;
[[nodiscard]] char *merge_loc_conf(ngx_conf_t *cf, void *parent, void *child) noexcept;

}  // namespace pat::ngx
