#pragma once

#include "cli/pat_failure.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace pat::store {

class writer;

}  // namespace pat::store

/// The subcommands. Each add_…() declares one on the command line.
namespace pat::cli {

class command_line;

struct command_context {
    std::string store;
    std::string pepper_file;
    std::string map_size_text = "32g";
    bool json = false;

    std::int64_t now = 0;      ///< one time for all parts of a command
    std::size_t map_size = 0;  ///< bytes

    /// The store's folder, or bad_value if none was named.
    [[nodiscard]] const std::string &folder() const;

    /// The same, to open the store in it. If it runs as root, the process becomes the folder's owner: open files that
    /// only the caller may read before.
    [[nodiscard]] const std::string &enter() const;

    /// Enters and opens the store to write in it. A transaction that has to wait for another process says so.
    void open(store::writer &writer) const;
};

void add_init(command_line &line, command_context &context);
void add_verify(command_line &line, command_context &context);
void add_backup(command_line &line, command_context &context);
void add_gc(command_line &line, command_context &context);
void add_convert(command_line &line, command_context &context);
void add_issue(command_line &line, command_context &context);
void add_rotate(command_line &line, command_context &context);
void add_import(command_line &line, command_context &context);
void add_export(command_line &line, command_context &context);
void add_apply(command_line &line, command_context &context);
void add_accept_snapshot(command_line &line, command_context &context);
void add_revoke(command_line &line, command_context &context);
void add_restore_access(command_line &line, command_context &context);
void add_show(command_line &line, command_context &context);
void add_list(command_line &line, command_context &context);
void add_check(command_line &line, command_context &context);
void add_stats(command_line &line, command_context &context);
void add_help(command_line &line, command_context &context);
void add_completion(command_line &line, command_context &context);

}  // namespace pat::cli
