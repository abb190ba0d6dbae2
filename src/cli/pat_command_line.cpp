#include "cli/pat_command_line.h"

#include "core/pat_token.h"

#include "cli/pat_help.h"
#include "cli/pat_output.h"

#include <algorithm>
#include <deque>
#include <sstream>
#include <string_view>
#include <utility>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

/// CLI11 2.5 would put the lines of a footer together to paragraphs.
template <typename Formatter>
void keep_lines(Formatter &formatter)
{
    if constexpr (requires { formatter.enable_footer_formatting(false); }) {
        formatter.enable_footer_formatting(false);
    }
}

/// Has the help of each command end with the options that all of them take.
class formatter : public CLI::Formatter {
public:
    formatter() { keep_lines(*this); }

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

    std::string make_help(const CLI::App *app, std::string name, CLI::AppFormatMode mode) const override
    {
        // CLI11 separates groups by two empty lines.
        return CLI::detail::find_and_replace(CLI::Formatter::make_help(app, std::move(name), mode), "\n\n\n", "\n\n");
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

    auto extras = app.remaining(true);
    std::erase(extras, "--");
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
    result.can_repeat = option.get_trigger_on_parse();
    return result;
}

std::vector<option_description> options_of(const CLI::App &app)
{
    std::vector<option_description> result;
    for (const CLI::Option *option : app.get_options({})) {
        result.push_back(describe(*option));
    }
    return result;
}

/// Throws unless exactly one of these was given.
void check_alternatives(const std::vector<const CLI::Option *> &options)
{
    const auto given = std::ranges::count_if(options, [](const CLI::Option *option) { return option->count() > 0; });
    if (!options.empty() && given != 1) {
        const std::string names =
            CLI::detail::join(options, [](const CLI::Option *option) { return option->get_name(); });
        throw CLI::RequiredError::Option(1, 1, static_cast<std::size_t>(given), names);
    }
}

}  // namespace

struct declared_command {
    CLI::App *app;
    command_body body;
    std::vector<const CLI::Option *> alternatives;  ///< exactly one of which is required
};

struct command_line::state {
    state(const char *name, const char *description) : app{description, name} {}

    CLI::App app;
    declared_command global{&app, {}, {}};
    std::deque<declared_command> commands;  ///< which handles point to
};

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
    return command_option{command_->app->add_option(name, value, description)};
}

command_option command_syntax::add_option(const char *name, std::uint64_t &value, const char *description)
{
    return command_option{command_->app->add_option(name, value, description)};
}

command_option command_syntax::add_option(const char *name, std::vector<std::string> &values, const char *description)
{
    // As an option for a vector, CLI11 2.5 would take "[a,b]" apart.
    const auto add = [&values](const std::string &value) { values.push_back(value); };
    return command_option{command_->app->add_option_function<std::string>(name, add, description)->trigger_on_parse()};
}

command_option command_syntax::add_flag(const char *name, bool &value, const char *description)
{
    return command_option{command_->app->add_flag(name, value, description)};
}

command_option command_syntax::add_argument(const char *name, std::string &value, const char *description)
{
    return command_option{command_->app->add_option(name, value, description)};
}

void command_syntax::require_exactly_one(const char *group, const std::vector<command_option> &options)
{
    // Not an option group of CLI11, whose arguments are not found after "--".
    for (const command_option &each : options) {
        if (each.option_->nonpositional()) {
            each.option_->group(group);
        }
        command_->alternatives.push_back(each.option_);
    }
}

void command_syntax::leave_out_global_options()
{
    command_->app->fallthrough(false);
}

command_line::command_line(const char *name, const char *description, const char *footer)
    : state_{std::make_unique<state>(name, description)}
{
    CLI::App &app = state_->app;
    app.require_subcommand(1);
    app.fallthrough();
    app.footer(footer);
    app.formatter(std::make_shared<formatter>());
}

command_line::~command_line() = default;

command_syntax command_line::global_options()
{
    return command_syntax{&state_->global};
}

void command_line::add_version_flag(const std::string &version)
{
    state_->app.set_version_flag("--version", version);
}

command_syntax command_line::add_command(const char *name, const char *description, const char *examples,
                                         command_body body)
{
    CLI::App *app = state_->app.add_subcommand(name, description);
    app->footer(examples);
    return command_syntax{&state_->commands.emplace_back(declared_command{app, std::move(body), {}})};
}

command_body command_line::parse(int argc, const char *const *argv)
{
    CLI::App &app = state_->app;
    try {
        app.parse(argc, argv);
        const CLI::App *called = app.get_subcommands().front();
        const declared_command &command = *std::ranges::find(state_->commands, called, &declared_command::app);
        check_alternatives(command.alternatives);
        return command.body;
    } catch (const CLI::Success &done) {
        std::ostringstream answer;
        app.exit(done, answer);
        write_out(answer.str());
        return {};
    } catch (const CLI::ParseError &error) {
        throw bad_value{usage_error(app, error)};
    }
}

std::string command_line::help(const std::string &command) const
{
    const CLI::App &app = state_->app;
    if (command.empty()) {
        return app.get_formatter()->make_help(&app, app.get_name(), CLI::AppFormatMode::Normal);
    }
    for (const CLI::App *each : app.get_subcommands({})) {
        if (each->get_name() == command) {
            return each->help(app.get_name());
        }
    }
    throw bad_value{unknown_command(names_of_commands(app), command) + ": see \"patctl --help\""};
}

std::vector<option_description> command_line::describe_options() const
{
    const CLI::App &app = state_->app;
    std::vector<option_description> result;
    for (const CLI::Option *option : app.get_options({})) {
        result.push_back(describe(*option));
        result.back().is_global = option != app.get_help_ptr() && option != app.get_version_ptr();
    }
    return result;
}

std::vector<command_description> command_line::describe_commands() const
{
    const CLI::App &app = state_->app;
    std::vector<command_description> result;
    for (const CLI::App *command : app.get_subcommands({})) {
        result.push_back(
            {command->get_name(), command->get_description(), options_of(*command), command->get_fallthrough()});
    }
    return result;
}

}  // namespace pat::cli
