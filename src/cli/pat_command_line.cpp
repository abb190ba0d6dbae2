#include "cli/pat_command_line.h"

#include "core/pat_token.h"

#include "cli/pat_output.h"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <span>
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

/// How many edits make one text of the other: a character inserted, removed or replaced, or two neighbours exchanged
/// (optimal string alignment).
std::size_t distance_of(std::string_view one, std::string_view other)
{
    const std::size_t columns = other.size() + 1;
    std::vector<std::size_t> edits((one.size() + 1) * columns);
    const auto at = [&](std::size_t i, std::size_t j) -> std::size_t & { return edits[i * columns + j]; };

    for (std::size_t i = 0; i <= one.size(); i++) {
        for (std::size_t j = 0; j <= other.size(); j++) {
            if (i == 0 || j == 0) {
                at(i, j) = i + j;
                continue;
            }
            const std::size_t replaced = at(i - 1, j - 1) + (one[i - 1] != other[j - 1] ? 1 : 0);
            at(i, j) = std::min({replaced, at(i - 1, j) + 1, at(i, j - 1) + 1});
            if (i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1]) {
                at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
            }
        }
    }
    return edits.back();
}

/// The error for a name that none of the commands has, with the one that was probably meant.
std::string unknown_command(const std::vector<std::string> &commands, const std::string &name)
{
    constexpr std::size_t most_edits = 2;
    constexpr std::size_t longest = 32;

    std::string meant;
    if (name.size() <= longest) {
        const auto distance = [&](const std::string &command) { return distance_of(command, name); };
        const std::string &nearest = *std::ranges::min_element(commands, {}, distance);
        if (distance(nearest) <= std::min(most_edits, name.size() / 2)) {
            meant = fmt::format(" (did you mean \"{}\"?)", nearest);
        }
    }
    return is_token(name) ? fmt::format("unknown command (a token is read from standard input only){}", meant)
                          : fmt::format("unknown command \"{}\"{}", name, meant);
}

std::vector<std::string> names_of_commands(const CLI::App &app)
{
    std::vector<std::string> names;
    for (const CLI::App *command : app.get_subcommands({})) {
        names.push_back(command->get_name());
    }
    return names;
}

/// CLI11 has meanings of its own for some values, and each release for others: "[[aabb]]", "{}", "++", the name of a
/// command. None of them is what begins with a NUL, as no argument does.
constexpr char mark = '\0';

std::string without_marks(std::string text)
{
    std::erase(text, mark);
    return text;
}

/// An argument up to its "=".
std::string_view name_in(std::string_view argument)
{
    return argument.substr(0, argument.find('='));
}

}  // namespace

struct declared_option {
    option_description description;
    CLI::Option *option = nullptr;
    std::string *value = nullptr;
    std::vector<std::string> *values = nullptr;
    bool *flag = nullptr;
    std::string variable;  ///< of the environment
    bool refuses_empty = false;
};

struct declared_command {
    CLI::App *app;
    command_body body;
    std::deque<declared_option> options;            ///< which handles point to
    std::vector<const CLI::Option *> alternatives;  ///< exactly one of which is required
};

namespace {

bool has_name(const declared_option &option, std::string_view name)
{
    return std::ranges::find(option.description.names, name) != option.description.names.end();
}

bool has_option(const declared_command &command, std::string_view name)
{
    return std::ranges::any_of(command.options, [&](const declared_option &each) { return has_name(each, name); });
}

std::string name_of(const declared_option &option)
{
    return option.option->get_name();
}

/// Adds an option whose values CLI11 only keeps: set_value() takes them.
CLI::Option *add_to(CLI::App &app, const char *name, const char *description)
{
    return app.add_option(name, CLI::callback_t{}, description)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

/// Tells CLI11 how the help shows the value of an option.
void show_value(const declared_option &option)
{
    const option_description &description = option.description;
    std::string text = !description.choices.empty() ? '{' + CLI::detail::join(description.choices, ",") + '}'
                       : description.names.empty()  ? std::string{}
                                                    : description.value_name;
    if (!option.variable.empty()) {
        text += fmt::format(" (Env:{})", option.variable);
    }
    option.option->type_name(text);
}

declared_option &declare(declared_command &command, CLI::Option *option, const char *value_name)
{
    declared_option &declared = command.options.emplace_back();
    declared.option = option;
    for (const std::string &name : option->get_snames()) {
        declared.description.names.push_back("-" + name);
    }
    for (const std::string &name : option->get_lnames()) {
        declared.description.names.push_back("--" + name);
    }
    declared.description.value_name = value_name;
    declared.description.description = option->get_description();
    show_value(declared);
    return declared;
}

/// Throws for an option whose value is the next option, as after a variable that is empty and not in quotes, and for a
/// flag with a value.
void check_form(const declared_command &global, const declared_command *called)
{
    const auto check = [&](const declared_option &option) {
        for (const std::string &result : option.option->results()) {
            if (option.flag != nullptr && result.find(mark) != std::string::npos) {
                throw bad_value{name_of(option) + ": takes no value"};
            }
            const std::string_view name = name_in(result);
            const bool is_next =
                name == "--" || has_option(global, name) || (called != nullptr && has_option(*called, name));
            if (!option.description.names.empty() && is_next) {
                throw bad_value{fmt::format(
                    "{0}: the value is missing (one that looks like an option is written {0}=VALUE)", name_of(option))};
            }
        }
    };
    std::ranges::for_each(global.options, check);
    if (called != nullptr) {
        std::ranges::for_each(called->options, check);
    }
}

/// Sets the variable of an option. Throws bad_value for a value that it does not take.
void set_value(const declared_option &option)
{
    if (option.flag != nullptr) {
        *option.flag = option.option->count() > 0;
        return;
    }
    std::vector<std::string> values = option.option->results();
    std::ranges::transform(values, values.begin(), without_marks);
    if (const char *value = option.variable.empty() ? nullptr : std::getenv(option.variable.c_str());
        values.empty() && value != nullptr && *value != '\0') {
        values.emplace_back(value);
    }

    const auto &choices = option.description.choices;
    for (const std::string &value : values) {
        if (option.refuses_empty && value.empty()) {
            throw bad_value{name_of(option) + ": the value is empty"};
        }
        if (!choices.empty() && std::ranges::find(choices, value) == choices.end()) {
            throw bad_value{fmt::format("{}: not one of {}", name_of(option), CLI::detail::join(choices, ", "))};
        }
    }
    if (option.values != nullptr) {
        *option.values = std::move(values);
    } else if (values.size() > 1) {
        throw bad_value{name_of(option) + ": given more than once"};
    } else if (option.value != nullptr && !values.empty()) {
        *option.value = std::move(values.front());
    }
}

/// What is wrong with a command line that CLI11 refuses. It never repeats an argument that may be a token of any form.
std::string usage_error(const CLI::App &app, const declared_command *called, const CLI::ParseError &error,
                        const char *last_argument)
{
    auto extras = app.remaining(true);
    std::erase(extras, "--");
    if (!extras.empty()) {
        const std::string &first = extras.front();
        const std::string name{name_in(first)};
        const bool is_option = name.starts_with('-') && name != "-";
        if (called == nullptr && !is_option) {
            const std::vector<std::string> commands = names_of_commands(app);
            const std::string given = without_marks(first);
            return std::ranges::find(commands, given) != commands.end() ? "the command has to be before \"--\""
                                                                        : unknown_command(commands, given);
        }
        if (!is_option || is_token(name)) {
            return "unexpected argument (a token is read from standard input only)";
        }
        return called != nullptr && has_option(*called, name)
                   ? fmt::format("{} has to be behind \"{}\"", name, called->app->get_name())
                   : "unknown option " + name;
    }
    if (dynamic_cast<const CLI::ArgumentMismatch *>(&error) != nullptr) {
        return fmt::format("{}: the value is missing", last_argument);
    }
    return called == nullptr ? "no command was given" : error.what();
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

struct command_line::state {
    state(const char *name, const char *description) : app{description, name}
    {
        declare(global, app.get_help_ptr(), "");
    }

    /// The command that was called, or nullptr.
    [[nodiscard]] const declared_command *called() const
    {
        const auto names = app.get_subcommands();
        return names.empty() ? nullptr : &*std::ranges::find(commands, names.front(), &declared_command::app);
    }

    /// The arguments in the reverse order, as CLI11 wants them, with a mark before each value.
    [[nodiscard]] std::vector<std::string> read(std::span<const char *const> arguments) const
    {
        const std::vector<std::string> names = names_of_commands(app);
        const auto takes_value = [this](std::string_view name) {
            return std::ranges::any_of(global.options, [&](const declared_option &option) {
                return has_name(option, name) && !option.description.value_name.empty();
            });
        };

        std::vector<std::string> result;
        bool is_called = false;
        bool has_options = true;
        std::string_view before;
        for (const char *each : arguments) {
            std::string argument = each;
            if (!has_options || !argument.starts_with('-')) {
                const bool calls = has_options && !is_called && !takes_value(before)
                                   && std::ranges::find(names, argument) != names.end();
                is_called = is_called || calls;
                argument.insert(0, calls ? 0 : 1, mark);
            } else if (argument == "--") {
                has_options = false;
            } else if (const std::size_t equals = argument.find('='); equals != std::string::npos) {
                argument.insert(equals + 1, 1, mark);
            }
            result.push_back(std::move(argument));
            before = each;
        }
        std::ranges::reverse(result);
        return result;
    }

    CLI::App app;
    declared_command global{&app, {}, {}, {}};
    std::deque<declared_command> commands;  ///< which handles point to
};

command_option &command_option::value_name(const std::string &name)
{
    option_->description.value_name = name;
    show_value(*option_);
    return *this;
}

command_option &command_option::environment(const std::string &variable)
{
    option_->variable = variable;
    show_value(*option_);
    return *this;
}

command_option &command_option::show_default()
{
    option_->option->default_str(*option_->value);
    return *this;
}

command_option &command_option::required()
{
    option_->option->required();
    return *this;
}

command_option &command_option::refuse_empty()
{
    option_->refuses_empty = true;
    return *this;
}

command_option &command_option::one_of(std::vector<std::string> values)
{
    option_->description.choices = std::move(values);
    show_value(*option_);
    return *this;
}

command_option &command_option::excludes(const command_option &other)
{
    option_->option->excludes(other.option_->option);
    return *this;
}

command_option &command_option::needs(const command_option &other)
{
    option_->option->needs(other.option_->option);
    return *this;
}

command_option command_syntax::add_option(const char *name, std::string &value, const char *description)
{
    declared_option &option = declare(*command_, add_to(*command_->app, name, description), "VALUE");
    option.value = &value;
    return command_option{&option};
}

command_option command_syntax::add_option(const char *name, std::vector<std::string> &values, const char *description)
{
    declared_option &option = declare(*command_, add_to(*command_->app, name, description), "VALUE");
    option.values = &values;
    option.description.can_repeat = true;
    return command_option{&option};
}

command_option command_syntax::add_flag(const char *name, bool &value, const char *description)
{
    const std::string text = description;
    declared_option &option = declare(*command_, command_->app->add_flag(name, text), "");
    option.flag = &value;
    return command_option{&option};
}

command_option command_syntax::add_argument(const char *name, std::string &value, const char *description)
{
    declared_option &option = declare(*command_, add_to(*command_->app, name, description), name);
    option.value = &value;
    return command_option{&option};
}

void command_syntax::require_exactly_one(const char *group, const std::vector<command_option> &options)
{
    // Not an option group of CLI11, whose arguments are not found after "--".
    for (const command_option &each : options) {
        CLI::Option *option = each.option_->option;
        if (option->nonpositional()) {
            option->group(group);
        }
        command_->alternatives.push_back(option);
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
    declare(state_->global, state_->app.set_version_flag("--version", version), "");
}

command_syntax command_line::add_command(const char *name, const char *description, const char *examples,
                                         command_body body)
{
    CLI::App *app = state_->app.add_subcommand(name, description);
    app->footer(examples);
    declared_command &command = state_->commands.emplace_back(declared_command{app, std::move(body), {}, {}});
    declare(command, app->get_help_ptr(), "");
    return command_syntax{&command};
}

command_body command_line::parse(int argc, const char *const *argv)
{
    CLI::App &app = state_->app;
    const declared_command &global = state_->global;
    const declared_command *called = nullptr;
    const std::span<const char *const> arguments{argv, static_cast<std::size_t>(argc)};
    try {
        try {
            app.parse(state_->read(arguments.subspan(1)));
            called = state_->called();
            check_form(global, called);
            check_alternatives(called->alternatives);
        } catch (const CLI::Success &done) {
            std::ostringstream answer;
            app.exit(done, answer);
            write_out(answer.str());
            return {};
        } catch (const CLI::ParseError &error) {
            called = state_->called();
            check_form(global, called);
            throw bad_value{usage_error(app, called, error, arguments.back())};
        }
        std::ranges::for_each(global.options, set_value);
        std::ranges::for_each(called->options, set_value);
        return called->body;
    } catch (const bad_value &bad) {
        throw bad_value{fmt::format("{}: see \"patctl {}--help\"", bad.what(),
                                    called != nullptr ? called->app->get_name() + ' ' : "")};
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
    for (const declared_option &option : state_->global.options) {
        result.push_back(option.description);
        result.back().is_global = option.option != app.get_help_ptr() && option.option != app.get_version_ptr();
    }
    return result;
}

std::vector<command_description> command_line::describe_commands() const
{
    std::vector<command_description> result;
    for (const declared_command &command : state_->commands) {
        command_description &description = result.emplace_back();
        description.name = command.app->get_name();
        description.description = command.app->get_description();
        std::ranges::transform(command.options, std::back_inserter(description.options), &declared_option::description);
        description.takes_global_options = command.app->get_fallthrough();
    }
    return result;
}

}  // namespace pat::cli
