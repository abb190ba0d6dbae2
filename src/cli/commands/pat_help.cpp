#include "cli/pat_help.h"

#include "cli/pat_command.h"
#include "cli/pat_output.h"

#include <memory>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl help
  patctl help issue)";

}  // namespace

void add_help(CLI::App &app, command_context &context)
{
    const auto name = std::make_shared<std::string>();
    CLI::App *command = app.add_subcommand("help", "Describe patctl, or one command");
    command->fallthrough(false);
    command->footer(examples);
    command->add_option("COMMAND", *name, "the command");
    command->callback([&app, &context, name] {
        context.run = [&app, name] {
            write_out(help_on(app, *name));
            return exit_status::yes;
        };
    });
}

}  // namespace pat::cli
