#include "core/pat_token.h"
#include "core/pat_version.h"
#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_issuing.h"
#include "cli/pat_owner.h"
#include "cli/pat_text.h"
#include "cli/pat_time.h"
#include "cli/pat_waiting.h"

#include <algorithm>
#include <clocale>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <new>
#include <span>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl init --store /var/lib/pat/api --group www-data
  export PAT_STORE=/var/lib/pat/api
  patctl issue --subject user:42 --name CI --scope api:read --expires-in 90d
  patctl list --status ok
  patctl revoke --subject user:42
"patctl help COMMAND" describes a command, "man patctl" all of them.
Exit status: 0 yes or done, 1 no, 2 wrong usage, 3 store or file fault.)";

/// Ends patctl as a signal would: what works on a store is not made for exceptions, and LMDB drops a transaction that
/// has not ended.
[[noreturn]] void end_without_memory() noexcept
{
    constexpr std::string_view message = "patctl: out of memory\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message.data(), message.size());
    _exit(static_cast<int>(exit_status::fault));
}

/// Before the constructors of global objects, of which those of CLI11 allocate.
[[gnu::constructor(101)]] void expect_lack_of_memory() noexcept
{
    std::set_new_handler(end_without_memory);
}

/// A file that is opened later must not get the number of a closed standard stream, or standard output would be written
/// into the store. The modes make each use fail as if the stream were still closed.
void occupy_standard_streams()
{
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) {
            std::_Exit(static_cast<int>(exit_status::fault));
        }
    }
}

std::size_t read_map_size(const std::string &text)
{
    constexpr std::size_t page = 4096;
    constexpr std::size_t smallest = std::size_t{1024} * 1024;

    const std::size_t size = parse_size(text);
    if (size < smallest) {
        throw bad_value{fmt::format("{} is less than 1m", quote_value(text))};
    }
    return (size + page - 1) / page * page;
}

void declare_global_options(command_line &line, command_context &context)
{
    command_syntax options = line.global_options();
    options.add_option("--store", context.store, "folder of the store").environment("PAT_STORE").value_name("DIR");
    options.add_option("--pepper-file", context.pepper_file, "file with the pepper of the store's digests")
        .environment("PAT_PEPPER_FILE")
        .value_name("FILE")
        .refuse_empty();
    options.add_option("--map-size", context.map_size_text, "address space for the store, the same as nginx has")
        .value_name("SIZE")
        .show_default();
    options.add_flag("--json", context.json, "JSON on standard output, one object per line");
    line.add_version_flag(fmt::format("patctl {}", release));
}

/// Whether an argument is or ends with a token that was issued: "TOKEN", "--option=TOKEN", "-xTOKEN".
bool has_token(std::string_view argument)
{
    // Where its prefix begins is not known, but the checksum counts that in.
    constexpr std::size_t rest = random_length + checksum_length;
    for (std::size_t length = rest + 1; length <= std::min(rest + max_prefix_length, argument.size()); length++) {
        if (!issued_prefix(argument.substr(argument.size() - length)).empty()) {
            return true;
        }
    }
    return false;
}

/// Other users can see arguments, and an error message that repeats one would end up in logs.
void refuse_tokens(std::span<char *const> arguments)
{
    for (const char *argument : arguments) {
        if (has_token(argument)) {
            throw bad_value{"there is a token among the arguments, where other users can see it: a token is read from "
                            "standard input only, so revoke this one"};
        }
    }
}

exit_status run(int argc, char **argv)
{
    command_context context;
    context.now = std::max<std::int64_t>(1, std::time(nullptr));  // 0 would be "not revoked" in a record

    command_line line{"patctl", "Makes, fills and inspects the token stores of nginx-auth-pat.", examples};
    declare_global_options(line, context);
    for (const auto add : {add_init, add_verify, add_backup, add_gc, add_convert, add_issue, add_rotate, add_import,
                           add_export, add_apply, add_accept_snapshot, add_revoke, add_restore_access, add_show,
                           add_list, add_check, add_stats, add_help, add_completion}) {
        add(line, context);
    }

    refuse_tokens({argv, static_cast<std::size_t>(argc)});
    const command_body body = line.parse(argc, argv);
    if (!body) {
        return exit_status::yes;
    }
    context.map_size = with_name("--map-size", [&] { return read_map_size(context.map_size_text); });
    return body();
}

}  // namespace

const std::string &command_context::folder() const
{
    if (store.empty()) {
        throw bad_value{"no store was named: use --store DIR or PAT_STORE"};
    }
    return store;
}

const std::string &command_context::enter() const
{
    become_owner_of(folder());
    return store;
}

void command_context::open(store::writer &writer) const
{
    const std::string &path = enter();
    require(path, writer.open(path.c_str(), map_size, [&path](pid_t thread) { tell_of_waiting(path, thread); }));
}

}  // namespace pat::cli

int main(int argc, char **argv)
{
    using namespace pat::cli;

    occupy_standard_streams();
    std::setlocale(LC_CTYPE, "C.UTF-8");  // for the width of characters

    exit_status status = exit_status::fault;
    try {
        status = run(argc, argv);
    } catch (const failure &problem) {
        error(problem.what());
        status = problem.status();
    } catch (const std::bad_alloc &) {
        error("out of memory");
    } catch (const std::exception &problem) {
        error(problem.what());
    }
    return static_cast<int>(status);
}
