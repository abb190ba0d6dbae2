#pragma once

#include "nginx/pat_ngx.h"

/// A look at the stores of a configuration before it is used. The master process does not open them, as others can
/// touch them: children do that have become the user whom the workers run as, which shows what the workers would find.
///
/// That user is known only when the core module has its configuration, after that of `http`. So the look belongs to a
/// core module of its own, which has no directives.
extern ngx_module_t ngx_auth_pat_module;
