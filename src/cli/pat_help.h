#pragma once

#include <string>
#include <vector>

/// What patctl says about its command line.
namespace pat::cli {

/// The error for a name that none of the commands has, with the one that was probably meant. It does not repeat what
/// may be a token.
[[nodiscard]] std::string unknown_command(const std::vector<std::string> &commands, const std::string &name);

}  // namespace pat::cli
