#pragma once

#include "cli/pat_failure.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace CLI {
class App;
}

/// The subcommands. Each add_…() declares one on the command line, which sets `command_context::run` if it is called.
namespace pat::cli {

struct command_context {
    std::string store;
    std::string pepper_file;
    std::string map_size_text = "32g";
    bool json = false;

    std::int64_t now = 0;      ///< one time for all parts of a command
    std::size_t map_size = 0;  ///< bytes

    std::function<exit_status()> run;

    /// The store's folder, or bad_value if none was named.
    [[nodiscard]] const std::string &folder() const;

    /// The same, to open the store in it. If it runs as root, the process becomes the folder's owner: open files that
    /// only the caller may read before.
    [[nodiscard]] const std::string &enter() const;
};

/// For options whose empty value, as from an unset variable of a script, must not mean that the option is absent.
[[nodiscard]] std::string refuse_empty(const std::string &value);

void add_init(CLI::App &app, command_context &context);
void add_verify(CLI::App &app, command_context &context);
void add_backup(CLI::App &app, command_context &context);
void add_gc(CLI::App &app, command_context &context);
void add_convert(CLI::App &app, command_context &context);
void add_issue(CLI::App &app, command_context &context);
void add_rotate(CLI::App &app, command_context &context);
void add_import(CLI::App &app, command_context &context);
void add_export(CLI::App &app, command_context &context);
void add_apply(CLI::App &app, command_context &context);
void add_accept_snapshot(CLI::App &app, command_context &context);
void add_revoke(CLI::App &app, command_context &context);
void add_restore_access(CLI::App &app, command_context &context);
void add_show(CLI::App &app, command_context &context);
void add_list(CLI::App &app, command_context &context);
void add_check(CLI::App &app, command_context &context);
void add_stats(CLI::App &app, command_context &context);
void add_help(CLI::App &app, command_context &context);
void add_completion(CLI::App &app, command_context &context);

}  // namespace pat::cli
