#pragma once

#include <string>

namespace CLI {
class App;
}

/// What patctl says about its command line.
namespace pat::cli {

/// Has the help of each command end with the options that all of them take.
void show_global_options(CLI::App &app);

/// The help of patctl, or of one of its commands. Throws bad_value for a name that none of them has.
[[nodiscard]] std::string help_on(const CLI::App &app, const std::string &command);

/// The error for a name that no command has, with the name that was probably meant. It does not repeat what may be a
/// token.
[[nodiscard]] std::string unknown_command(const CLI::App &app, const std::string &name);

}  // namespace pat::cli
