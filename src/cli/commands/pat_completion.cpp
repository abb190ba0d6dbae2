#include "cli/pat_command.h"
#include "cli/pat_output.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl completion bash > /usr/share/bash-completion/completions/patctl
  patctl completion zsh > /usr/share/zsh/vendor-completions/_patctl)";

constexpr std::string_view bash_head = R"(# Completion of patctl for bash, printed by "patctl completion bash".
_patctl() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command='' word words='' kind=''
    COMPREPLY=()

    # "=" is a word of its own.
    if [[ $current == = ]]; then
        current=''
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        case $word in
)";

constexpr std::string_view bash_tail = R"(
    case $kind in
        none) ;;
        directories) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
    esac
}
complete -F _patctl patctl
)";

constexpr std::string_view zsh_head = R"(#compdef patctl
# Completion of patctl for zsh, printed by "patctl completion zsh".
_patctl() {
    local -a globals commands
    local state line curcontext=$curcontext
)";

constexpr std::string_view zsh_tail = R"(
            esac
            ;;
    esac
}
_patctl "$@"
)";

using option_list = std::vector<const CLI::Option *>;
using command_list = std::vector<const CLI::App *>;

/// The options of a command, with those of its groups.
option_list options_of(const CLI::App &app)
{
    option_list result = app.get_options({});
    for (const CLI::App *group : app.get_subcommands({})) {
        if (group->get_name().empty()) {
            std::ranges::copy_if(group->get_options({}), std::back_inserter(result),
                                 [group](const CLI::Option *option) { return option != group->get_help_ptr(); });
        }
    }
    return result;
}

/// What a value is to be completed with.
struct completion {
    enum class kind : unsigned char { none, directory, file, words } what = kind::none;
    std::string words;
};

completion completion_of(const CLI::Option &option, const std::string &commands)
{
    const std::string name = option.nonpositional() ? option.get_type_name() : option.get_name(true);
    if (name == "DIR") {
        return {completion::kind::directory, {}};
    }
    if (name == "FILE") {
        return {completion::kind::file, {}};
    }
    if (name == "COMMAND") {
        return {completion::kind::words, commands};
    }

    // CLI::IsMember describes itself as "{a,b}".
    const std::string &type = option.get_type_name();
    const std::size_t start = type.find('{');
    if (start == std::string::npos) {
        return {};
    }
    std::string words = type.substr(start + 1, type.find('}') - start - 1);
    std::ranges::replace(words, ',', ' ');
    return {completion::kind::words, words};
}

bool takes_value(const CLI::Option &option)
{
    return option.get_expected_max() > 0;
}

std::vector<std::string> names_of(const CLI::Option &option)
{
    std::vector<std::string> result;
    for (const std::string &name : option.get_snames()) {
        result.push_back("-" + name);
    }
    for (const std::string &name : option.get_lnames()) {
        result.push_back("--" + name);
    }
    return result;
}

std::string joined(const std::vector<std::string> &words, std::string_view separator)
{
    std::string result;
    for (const std::string &word : words) {
        result.append(result.empty() ? "" : separator).append(word);
    }
    return result;
}

std::string names_of(const command_list &commands, std::string_view separator)
{
    std::vector<std::string> names;
    for (const CLI::App *command : commands) {
        names.push_back(command->get_name());
    }
    return joined(names, separator);
}

/// Sets `kind` and `words`, as the body of a case.
std::string bash_setting(const completion &value)
{
    switch (value.what) {
    case completion::kind::none: return "kind=none";
    case completion::kind::directory: return "kind=directories";
    case completion::kind::file: return "kind=files";
    case completion::kind::words: return fmt::format("kind=words words='{}'", value.words);
    }
    return {};
}

/// Cases that complete the value of an option, each only for the command it belongs to, or for all.
void add_values(std::string_view command, const option_list &options, const std::string &commands, std::string &out)
{
    for (const CLI::Option *option : options) {
        for (const std::string &name : takes_value(*option) ? names_of(*option) : std::vector<std::string>{}) {
            out += fmt::format("        {}:{}) {} ;;\n", command, name, bash_setting(completion_of(*option, commands)));
        }
    }
}

/// A case that completes the options of a command, or else its argument.
void add_words(std::string_view command, const option_list &options, const std::string &commands, std::string &out)
{
    std::vector<std::string> names;
    completion argument;
    for (const CLI::Option *option : options) {
        if (!option->nonpositional()) {
            argument = completion_of(*option, commands);
        }
        for (std::string &name : names_of(*option)) {
            names.push_back(std::move(name));
        }
    }
    out += fmt::format("            {}:-*) kind=words words='{}' ;;\n", command, joined(names, " "));
    out += fmt::format("            {}:*) {} ;;\n", command, bash_setting(argument));
}

std::string for_bash(const CLI::App &app, const command_list &commands)
{
    const std::string names = names_of(commands, " ");
    const option_list globals = options_of(app);

    std::string values;
    std::string words;
    for (const CLI::App *command : commands) {
        option_list options = options_of(*command);
        add_values(command->get_name(), options, names, values);
        if (command->get_fallthrough()) {
            for (const CLI::Option *option : globals) {
                if (option != app.get_help_ptr() && option != app.get_version_ptr()) {
                    options.push_back(option);
                }
            }
        }
        add_words(command->get_name(), options, names, words);
    }
    add_values("*", globals, names, values);

    std::string result{bash_head};
    result +=
        fmt::format("            {}) command=$word; break ;;\n        esac\n    done\n\n", names_of(commands, "|"));
    result += "    case $command:$before in\n" + values + "    esac\n";
    result += "    if [[ -z $kind ]]; then\n        case $command:$current in\n" + words;

    std::string own;
    for (const CLI::Option *option : globals) {
        own += ' ' + joined(names_of(*option), " ");
    }
    result += fmt::format("            :-*) kind=words words='{}' ;;\n", own.substr(1));
    result += fmt::format("            :*) kind=words words='{}' ;;\n        esac\n    fi\n", names);
    return result.append(bash_tail);
}

/// A text within single quotes, where _arguments and _describe take ":", "[" and "]" for themselves.
std::string zsh_text(std::string_view text)
{
    std::string result;
    for (const char character : text) {
        if (character == '\'') {
            result += "'\\''";
            continue;
        }
        if (character == ':' || character == '[' || character == ']' || character == '\\') {
            result += '\\';
        }
        result += character;
    }
    return result;
}

std::string zsh_action(const completion &value)
{
    switch (value.what) {
    case completion::kind::none: return " ";
    case completion::kind::directory: return "_files -/";
    case completion::kind::file: return "_files";
    case completion::kind::words: return fmt::format("({})", value.words);
    }
    return {};
}

/// The arguments of _arguments for options.
std::string zsh_options(const option_list &options, const std::string &commands, std::string_view indent)
{
    std::string result;
    for (const CLI::Option *option : options) {
        const std::string action = zsh_action(completion_of(*option, commands));
        if (!option->nonpositional()) {
            result += fmt::format("{}'1:{}:{}'", indent, zsh_text(option->get_name(true)), action);
            continue;
        }
        for (const std::string &name : names_of(*option)) {
            // Those that may be repeated have "*" before their name.
            const bool can_repeat = option->get_expected_max() > 1;
            result += fmt::format("{}'{}{}{}[{}]", indent, can_repeat ? "*" : "", name,
                                  !takes_value(*option)    ? ""
                                  : name.starts_with("--") ? "="
                                                           : "+",
                                  zsh_text(option->get_description()));
            if (takes_value(*option)) {
                result += fmt::format(":{}:{}", zsh_text(name.substr(name.find_first_not_of('-'))), action);
            }
            result += '\'';
        }
    }
    return result;
}

std::string for_zsh(const CLI::App &app, const command_list &commands)
{
    const std::string names = names_of(commands, " ");

    option_list own;
    option_list globals;
    for (const CLI::Option *option : options_of(app)) {
        (option == app.get_help_ptr() || option == app.get_version_ptr() ? own : globals).push_back(option);
    }

    std::string result{zsh_head};
    result += "    globals=(" + zsh_options(globals, names, "\n        ") + "\n    )\n    commands=(";
    for (const CLI::App *command : commands) {
        result += fmt::format("\n        '{}:{}'", command->get_name(), zsh_text(command->get_description()));
    }
    result += "\n    )\n    _arguments -C \"${globals[@]}\"" + zsh_options(own, names, " \\\n        ")
              + " \\\n        '1:command:->command' '*::argument:->argument'\n"
                "    case $state in\n        command) _describe command commands ;;\n        argument)\n"
                "            case $words[1] in";
    for (const CLI::App *command : commands) {
        result += fmt::format("\n                {}) _arguments{}{} ;;", command->get_name(),
                              command->get_fallthrough() ? " \"${globals[@]}\"" : "",
                              zsh_options(options_of(*command), names, " \\\n                    "));
    }
    return result.append(zsh_tail);
}

}  // namespace

void add_completion(CLI::App &app, command_context &context)
{
    const auto shell = std::make_shared<std::string>();
    CLI::App *command = app.add_subcommand("completion", "Print a script with which a shell completes patctl");
    command->fallthrough(false);
    command->footer(examples);
    command->add_option("SHELL", *shell, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
    command->callback([&app, &context, shell] {
        context.run = [&app, shell] {
            const CLI::App &described = app;
            const command_list commands = described.get_subcommands({});
            write_out(*shell == "bash" ? for_bash(described, commands) : for_zsh(described, commands));
            return exit_status::yes;
        };
    });
}

}  // namespace pat::cli
