#include "cli/pat_command_line.h"

#include "core/pat_token.h"

#include "cli/pat_help.h"
#include "cli/pat_output.h"

#include <algorithm>
#include <sstream>
#include <string_view>
#include <utility>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

/// Has the help of each command end with the options that all of them take.
class formatter : public CLI::Formatter {
public:
    std::string make_subcommands(const CLI::App *app, CLI::AppFormatMode mode) const override
    {
        std::string text = CLI::Formatter::make_subcommands(app, mode);
        const CLI::App *parent = app->get_parent();
        if (parent != nullptr && app->get_fallthrough() && mode == CLI::AppFormatMode::Normal) {
            text += make_group("Global options", false, parent->get_options([parent](const CLI::Option *option) {
                return option != parent->get_help_ptr() && option != parent->get_version_ptr();
            }));
        }
        return text;
    }
};

std::vector<std::string> names_of_commands(const CLI::App &app)
{
    std::vector<std::string> names;
    for (const CLI::App *command : app.get_subcommands({})) {
        names.push_back(command->get_name());
    }
    return names;
}

/// What CLI11 says about the command line, in our form. It never repeats an argument that may be a token of any form.
std::string usage_error(const CLI::App &app, const CLI::ParseError &error)
{
    const auto called = app.get_subcommands();
    const std::string help =
        fmt::format("see \"patctl {}--help\"", called.empty() ? "" : called.front()->get_name() + ' ');

    const auto extras = app.remaining(true);
    if (called.empty() && extras.empty()) {
        return "no command was given: " + help;
    }
    if (called.empty() && !extras.front().starts_with('-')) {
        return fmt::format("{}: {}", unknown_command(names_of_commands(app), extras.front()), help);
    }
    if (called.empty() || dynamic_cast<const CLI::ExtrasError *>(&error) != nullptr) {
        const std::string name = extras.empty() ? "" : extras.front().substr(0, extras.front().find('='));
        if (!name.starts_with('-') || is_token(name)) {
            return "unexpected argument (a token is read from standard input only): " + help;
        }
        return "unknown option " + name + ": " + help;
    }
    if (dynamic_cast<const CLI::ConversionError *>(&error) != nullptr) {
        return "an option has an invalid value: " + help;
    }
    return std::string{error.what()} + ": " + help;
}

std::vector<std::string> choices_of(const CLI::Option &option)
{
    // CLI::IsMember describes itself as "{a,b}".
    const std::string type = option.get_type_name();
    const std::size_t start = type.find('{');
    return start == std::string::npos ? std::vector<std::string>{}
                                      : CLI::detail::split(type.substr(start + 1, type.find('}') - start - 1), ',');
}

option_description describe(const CLI::Option &option)
{
    option_description result;
    for (const std::string &name : option.get_snames()) {
        result.names.push_back("-" + name);
    }
    for (const std::string &name : option.get_lnames()) {
        result.names.push_back("--" + name);
    }
    if (option.get_expected_max() > 0) {
        result.value_name = option.nonpositional() ? option.get_type_name() : option.get_name(true);
        result.choices = choices_of(option);
    }
    result.description = option.get_description();
    result.can_repeat = option.get_expected_max() > 1;
    return result;
}

/// The options of a command, with those of its groups.
std::vector<option_description> options_of(const CLI::App &app)
{
    std::vector<option_description> result;
    for (const CLI::Option *option : app.get_options({})) {
        result.push_back(describe(*option));
    }
    for (const CLI::App *group : app.get_subcommands({})) {
        if (group->get_name().empty()) {
            for (const CLI::Option *option : group->get_options({})) {
                if (option != group->get_help_ptr()) {
                    result.push_back(describe(*option));
                }
            }
        }
    }
    return result;
}

}  // namespace

command_option &command_option::value_name(const std::string &name)
{
    option_->type_name(name);
    return *this;
}

command_option &command_option::environment(const std::string &variable)
{
    option_->envname(variable);
    return *this;
}

command_option &command_option::show_default()
{
    option_->capture_default_str();
    return *this;
}

command_option &command_option::required()
{
    option_->required();
    return *this;
}

command_option &command_option::refuse_empty()
{
    option_->check([](const std::string &value) { return value.empty() ? "the value is empty" : ""; });
    return *this;
}

command_option &command_option::one_of(std::vector<std::string> values)
{
    option_->check(CLI::IsMember(std::move(values)));
    return *this;
}

command_option &command_option::range(std::uint64_t smallest, std::uint64_t largest)
{
    option_->check(CLI::Range(smallest, largest));
    return *this;
}

command_option &command_option::excludes(const command_option &other)
{
    option_->excludes(other.option_);
    return *this;
}

command_option &command_option::needs(const command_option &other)
{
    option_->needs(other.option_);
    return *this;
}

command_option command_syntax::add_option(const char *name, std::string &value, const char *description)
{
    return command_option{app_->add_option(name, value, description)};
}

command_option command_syntax::add_option(const char *name, std::uint64_t &value, const char *description)
{
    return command_option{app_->add_option(name, value, description)};
}

command_option command_syntax::add_option(const char *name, std::vector<std::string> &values, const char *description)
{
    return command_option{app_->add_option(name, values, description)->allow_extra_args(false)};
}

command_option command_syntax::add_flag(const char *name, bool &value, const char *description)
{
    return command_option{app_->add_flag(name, value, description)};
}

command_option command_syntax::add_argument(const char *name, std::string &value, const char *description)
{
    return command_option{app_->add_option(name, value, description)};
}

command_syntax command_syntax::add_exclusive_group(const char *name, const char *description)
{
    CLI::App *group = app_->add_option_group(name, description);
    group->require_option(1);
    return command_syntax{group};
}

void command_syntax::leave_out_global_options()
{
    app_->fallthrough(false);
}

command_line::command_line(const char *name, const char *description, const char *footer)
    : app_{std::make_unique<CLI::App>(description, name)}
{
    app_->require_subcommand(1);
    app_->fallthrough();
    app_->footer(footer);
    app_->formatter(std::make_shared<formatter>());
}

command_line::~command_line() = default;

command_syntax command_line::global_options() noexcept
{
    return command_syntax{app_.get()};
}

void command_line::add_version_flag(const std::string &version)
{
    app_->set_version_flag("--version", version);
}

command_syntax command_line::add_command(const char *name, const char *description, const char *examples,
                                         command_body body)
{
    CLI::App *command = app_->add_subcommand(name, description);
    command->footer(examples);
    command->callback([this, body = std::move(body)] { called_ = body; });
    return command_syntax{command};
}

command_line::command_body command_line::parse(int argc, const char *const *argv)
{
    try {
        app_->parse(argc, argv);
    } catch (const CLI::Success &done) {
        std::ostringstream answer;
        app_->exit(done, answer);
        write_out(answer.str());
        return {};
    } catch (const CLI::ParseError &error) {
        throw bad_value{usage_error(*app_, error)};
    }
    return called_;
}

std::string command_line::help(const std::string &command) const
{
    if (command.empty()) {
        return app_->get_formatter()->make_help(app_.get(), app_->get_name(), CLI::AppFormatMode::Normal);
    }
    for (const CLI::App *each : std::as_const(*app_).get_subcommands({})) {
        if (each->get_name() == command) {
            return each->help(app_->get_name());
        }
    }
    throw bad_value{unknown_command(names_of_commands(*app_), command) + ": see \"patctl --help\""};
}

std::vector<option_description> command_line::describe_options() const
{
    std::vector<option_description> result;
    for (const CLI::Option *option : std::as_const(*app_).get_options({})) {
        result.push_back(describe(*option));
        result.back().is_global = option != app_->get_help_ptr() && option != app_->get_version_ptr();
    }
    return result;
}

std::vector<command_description> command_line::describe_commands() const
{
    std::vector<command_description> result;
    for (const CLI::App *command : std::as_const(*app_).get_subcommands({})) {
        result.push_back(
            {command->get_name(), command->get_description(), options_of(*command), command->get_fallthrough()});
    }
    return result;
}

}  // namespace pat::cli
