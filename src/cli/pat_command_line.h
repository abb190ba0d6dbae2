#pragma once

#include "cli/pat_failure.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

/// The command line: what patctl takes, and reading that. CLI11 does the work. Compiling its header takes longer than
/// all else in a file, so only pat_command_line.cpp includes it.
namespace pat::cli {

struct declared_command;
struct declared_option;

/// An option, a flag or an argument that was declared. A handle, which is valid as long as its command line.
class command_option {
public:
    explicit command_option(declared_option *option) noexcept : option_{option} {}

    /// What its value is, for people and for completion: "DIR" and "FILE" are completed with paths.
    command_option &value_name(const std::string &name);

    /// Where its value comes from if it is not on the command line.
    command_option &environment(const std::string &variable);

    /// Has the help tell the value that it has by now.
    command_option &show_default();

    command_option &required();

    /// An empty value, as from an unset variable of a script, must not mean that the option is absent.
    command_option &refuse_empty();

    command_option &one_of(std::vector<std::string> values);

    command_option &excludes(const command_option &other);
    command_option &needs(const command_option &other);

private:
    friend class command_syntax;

    declared_option *option_;
};

/// The options and arguments of a command, or those of patctl that all commands take. A handle, as above. Parsing sets
/// the variables that are declared here, which have to outlive the command line.
class command_syntax {
public:
    explicit command_syntax(declared_command *command) noexcept : command_{command} {}

    command_option add_option(const char *name, std::string &value, const char *description);

    /// May be given several times, each time with one value.
    command_option add_option(const char *name, std::vector<std::string> &values, const char *description);

    command_option add_flag(const char *name, bool &value, const char *description);
    command_option add_argument(const char *name, std::string &value, const char *description);

    /// Exactly one of these has to be given. The options among them get a group of their own in the help.
    void require_exactly_one(const char *group, const std::vector<command_option> &options);

    /// The options that all commands take are not for this one.
    void leave_out_global_options();

private:
    declared_command *command_;
};

/// An option or an argument, for completion.
struct option_description {
    std::vector<std::string> names;  ///< "-h" and "--help"; none: an argument
    std::string value_name;          ///< empty: it takes no value; for an argument, its name
    std::vector<std::string> choices;
    std::string description;
    bool can_repeat = false;
    bool is_global = false;  ///< all commands take it
};

struct command_description {
    std::string name;
    std::string description;
    std::vector<option_description> options;
    bool takes_global_options = true;
};

/// Runs a command.
using command_body = std::function<exit_status()>;

class command_line {
public:
    command_line(const char *name, const char *description, const char *footer);
    command_line(const command_line &) = delete;
    command_line &operator=(const command_line &) = delete;
    ~command_line();

    [[nodiscard]] command_syntax global_options();
    void add_version_flag(const std::string &version);

    command_syntax add_command(const char *name, const char *description, const char *examples, command_body body);

    /// Returns the body of the command that was called, or nothing if --help or --version was given, which it has
    /// answered. Throws bad_value for wrong usage.
    [[nodiscard]] command_body parse(int argc, const char *const *argv);

    /// The help of patctl, or of one of its commands. Throws bad_value for a name that none of them has.
    [[nodiscard]] std::string help(const std::string &command) const;

    /// What patctl takes itself: the options of all commands, and its own.
    [[nodiscard]] std::vector<option_description> describe_options() const;

    [[nodiscard]] std::vector<command_description> describe_commands() const;

private:
    struct state;
    std::unique_ptr<state> state_;
};

}  // namespace pat::cli
