#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_output.h"

#include <memory>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl help
  patctl help issue)";

}  // namespace

void add_help(command_line &line, command_context &)
{
    const auto name = std::make_shared<std::string>();
    command_syntax command = line.add_command("help", "Describe patctl, or one command", examples, [&line, name] {
        write_out(line.help(*name));
        return exit_status::yes;
    });
    command.leave_out_global_options();
    command.add_argument("COMMAND", *name, "the command");
}

}  // namespace pat::cli
