#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_output.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <string_view>
#include <vector>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl completion bash > /usr/share/bash-completion/completions/patctl
  patctl completion zsh > /usr/share/zsh/vendor-completions/_patctl)";

constexpr std::string_view bash_head = R"(# Completion of patctl for bash, printed by "patctl completion bash".
_patctl() {
    local current=${COMP_WORDS[COMP_CWORD]} before command='' words='' kind=''
    local index equals=$((COMP_CWORD - 1)) start='' operand=''
    COMPREPLY=()

    # "=" is a word of its own: behind an option, or in a value, whose start is then not to be repeated.
    if ((equals > 0)) && [[ $current == = ]]; then
        current=''
        equals=$COMP_CWORD
    fi
    while ((equals > 1)) && [[ ${COMP_WORDS[equals]} == = && ${COMP_WORDS[equals - 1]} != -* ]]; do
        start=${COMP_WORDS[equals - 1]}=$start
        ((equals -= 2))
    done
    before=${COMP_WORDS[equals]}
    [[ $before != = ]] || before=${COMP_WORDS[equals - 1]}
    current=$start$current

    for ((index = 1; index < COMP_CWORD; index++)); do
        case $command:${COMP_WORDS[index]} in
            *:--) operand=any ;;
)";

constexpr std::string_view bash_tail = R"(
    case $kind in
        none) ;;
        directories) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
    esac
    COMPREPLY=("${COMPREPLY[@]#"$start"}")
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

using option_list = std::vector<option_description>;
using command_list = std::vector<command_description>;

/// What a value is to be completed with.
struct completion {
    enum class kind : unsigned char { none, directory, file, words } what = kind::none;
    std::string words;
};

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
    for (const command_description &command : commands) {
        names.push_back(command.name);
    }
    return joined(names, separator);
}

completion completion_of(const option_description &option, const std::string &commands)
{
    if (option.value_name == "DIR") {
        return {completion::kind::directory, {}};
    }
    if (option.value_name == "FILE") {
        return {completion::kind::file, {}};
    }
    if (option.value_name == "COMMAND") {
        return {completion::kind::words, commands};
    }
    return option.choices.empty() ? completion{} : completion{completion::kind::words, joined(option.choices, " ")};
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
    for (const option_description &option : options) {
        if (option.value_name.empty()) {
            continue;
        }
        for (const std::string &name : option.names) {
            out +=
                fmt::format("            {}:{}) {} ;;\n", command, name, bash_setting(completion_of(option, commands)));
        }
    }
}

/// A case that completes the options of a command, or else its argument.
void add_words(std::string_view command, const option_list &options, const std::string &commands, std::string &out)
{
    std::vector<std::string> names;
    completion argument;
    for (const option_description &option : options) {
        if (option.names.empty()) {
            argument = completion_of(option, commands);
        }
        names.insert(names.end(), option.names.begin(), option.names.end());
    }
    out += fmt::format("            {}:-*) kind=words words='{}' ;;\n", command, joined(names, " "));
    out += fmt::format("            {}:*) {} ;;\n", command, bash_setting(argument));
}

std::string for_bash(const option_list &own, const command_list &commands)
{
    const std::string names = names_of(commands, " ");

    std::string values;
    std::string words;
    for (const command_description &command : commands) {
        option_list options = command.options;
        add_values(command.name, options, names, values);
        if (command.takes_global_options) {
            std::ranges::copy_if(own, std::back_inserter(options), &option_description::is_global);
        }
        add_words(command.name, options, names, words);
    }
    add_values("*", own, names, values);

    std::vector<std::string> with_value;
    for (const option_description &option : own) {
        if (!option.value_name.empty()) {
            std::ranges::transform(option.names, std::back_inserter(with_value),
                                   [](const std::string &name) { return ':' + name; });
        }
    }

    std::string result{bash_head};
    result += fmt::format("            :{}) command=${{COMP_WORDS[index]}} ;;\n", names_of(commands, "|:"));
    result += fmt::format("            {})\n"
                          "                # Its value, which may be the name of a command.\n"
                          "                [[ ${{COMP_WORDS[index + 1]}} != = ]] || ((++index))\n"
                          "                ((++index))\n"
                          "                while [[ ${{COMP_WORDS[index + 1]}} == = ]]; do ((index += 2)); done\n"
                          "                ;;\n",
                          joined(with_value, "|"));
    result += "        esac\n    done\n\n";
    result += "    if [[ -z $operand ]]; then\n        case $command:$before in\n" + values + "        esac\n    fi\n";
    result += "    if [[ -z $kind ]]; then\n        case $command:${operand:-$current} in\n" + words;

    std::string own_names;
    for (const option_description &option : own) {
        own_names += ' ' + joined(option.names, " ");
    }
    result += fmt::format("            :-*) kind=words words='{}' ;;\n", own_names.substr(1));
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
    case completion::kind::none: return "()";
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
    for (const option_description &option : options) {
        const std::string action = zsh_action(completion_of(option, commands));
        if (option.names.empty()) {
            result += fmt::format("{}'1:{}:{}'", indent, zsh_text(option.value_name), action);
            continue;
        }
        const bool takes_value = !option.value_name.empty();
        for (const std::string &name : option.names) {
            // Those that may be repeated have "*" before their name.
            result += fmt::format("{}'{}{}{}[{}]", indent, option.can_repeat ? "*" : "", name,
                                  !takes_value             ? ""
                                  : name.starts_with("--") ? "="
                                                           : "+",
                                  zsh_text(option.description));
            if (takes_value) {
                result += fmt::format(":{}:{}", zsh_text(name.substr(name.find_first_not_of('-'))), action);
            }
            result += '\'';
        }
    }
    return result;
}

std::string for_zsh(const option_list &options, const command_list &commands)
{
    const std::string names = names_of(commands, " ");

    option_list own;
    option_list globals;
    for (const option_description &option : options) {
        (option.is_global ? globals : own).push_back(option);
    }

    std::string result{zsh_head};
    result += "    globals=(" + zsh_options(globals, names, "\n        ") + "\n    )\n    commands=(";
    for (const command_description &command : commands) {
        result += fmt::format("\n        '{}:{}'", command.name, zsh_text(command.description));
    }
    result += "\n    )\n    _arguments -S -C \"${globals[@]}\"" + zsh_options(own, names, " \\\n        ")
              + " \\\n        '1:command:->command' '*::argument:->argument'\n"
                "    case $state in\n        command) _describe command commands ;;\n        argument)\n"
                "            case $words[1] in";
    for (const command_description &command : commands) {
        result += fmt::format("\n                {}) _arguments -S{}{} ;;", command.name,
                              command.takes_global_options ? " \"${globals[@]}\"" : "",
                              zsh_options(command.options, names, " \\\n                    "));
    }
    return result.append(zsh_tail);
}

}  // namespace

void add_completion(command_line &line, command_context &)
{
    const auto shell = std::make_shared<std::string>();
    command_syntax command =
        line.add_command("completion", "Print a script with which a shell completes patctl", examples, [&line, shell] {
            const auto script = *shell == "bash" ? for_bash : for_zsh;
            write_out(script(line.describe_options(), line.describe_commands()));
            return exit_status::yes;
        });
    command.leave_out_global_options();
    command.add_argument("SHELL", *shell, "bash or zsh").required().one_of({"bash", "zsh"});
}

}  // namespace pat::cli
