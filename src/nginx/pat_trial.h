#pragma once

#include "nginx/pat_ngx.h"

/// Checks the stores of a configuration before it is used. The master does not open them, as other users can touch
/// them. Child processes do, as the user of the workers, and so find what the workers would find.
///
/// That user is known only once the core module is configured, which is after `http`. The check therefore belongs to a
/// separate core module, which has no directives.
extern ngx_module_t ngx_auth_pat_module;
