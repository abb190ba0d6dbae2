#pragma once

#include "cli/pat_command.h"

/// The operator's word for what "apply" holds back.
namespace pat::cli {

void add_accept(CLI::App &app, context &with);

}  // namespace pat::cli
