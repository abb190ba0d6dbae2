#include "store/pat_files.h"
#include "store/pat_ownership.h"
#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_owner.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl backup /var/backups/pat-$(date +%F))";

/// In a child that is the store's owner: copies the store into the folder `into`, under this name.
[[noreturn]] void copy_as_owner(const command_context &context, const store::descriptor &into, const char *name,
                                uid_t owner, int answer)
{
    constexpr mode_t writable_by_others = 022;
    try {
        const std::string source = std::filesystem::absolute(context.folder()).string();
        become(owner);
        umask(writable_by_others);
        const store::fault problem = fchdir(into.get()) == 0
                                         ? store::writer::backup(source.c_str(), name, context.map_size)
                                         : store::from_errno(errno);
        if (write(answer, &problem, sizeof problem) == sizeof problem) {
            std::_Exit(EXIT_SUCCESS);
        }
    } catch (const std::exception &problem) {
        error(problem.what());
    }
    std::_Exit(EXIT_FAILURE);
}

/// For root and the store of another user: root makes the destination, and a child that is the owner makes the copy,
/// which belongs to the owner and can replace the store.
store::fault backup_for_owner(const command_context &context, const std::string &destination,
                              const struct stat &original)
{
    constexpr const char *name = "copy";
    constexpr mode_t only_root = 0700;

    require(context.folder(), store::check_way(context.folder().c_str(), original.st_uid));
    struct stat info;
    if (lstat(destination.c_str(), &info) == 0) {
        return {store::fault_kind::exists, EEXIST};
    }
    const std::string partial = destination + ".partial";
    if (mkdir(partial.c_str(), only_root) != 0) {
        return store::from_errno(errno);
    }

    // Work by descriptor from here on, so that the owner has no other way in.
    const store::descriptor folder{open(partial.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    int ends[2];
    if (folder.get() < 0 || fchown(folder.get(), original.st_uid, original.st_gid) != 0
        || fchmod(folder.get(), store::folder_mode) != 0 || pipe2(ends, O_CLOEXEC) != 0) {
        return store::from_errno(errno);
    }
    const store::descriptor answer{ends[0]};
    store::descriptor question{ends[1]};

    const pid_t child = fork();
    if (child == 0) {
        copy_as_owner(context, folder, name, original.st_uid, question.get());
    }
    question = {};

    store::fault problem;
    if (child < 0 || read(answer.get(), &problem, sizeof problem) != sizeof problem) {
        problem = {store::fault_kind::damaged};
    }
    while (child > 0 && waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }

    // Lock the owner out before the copy is moved.
    if (!problem
        && (fchown(folder.get(), 0, 0) != 0 || fchmod(folder.get(), only_root) != 0
            || fstatat(folder.get(), name, &info, AT_SYMLINK_NOFOLLOW) != 0)) {
        problem = store::from_errno(errno);
    }
    if (!problem && !S_ISDIR(info.st_mode)) {
        problem = {store::fault_kind::replaced};
    }
    if (!problem && renameat(folder.get(), name, AT_FDCWD, destination.c_str()) != 0) {
        problem = store::from_errno(errno);
    }
    rmdir(partial.c_str());
    return problem;
}

exit_status backup(const command_context &context, const std::string &destination)
{
    if (geteuid() == 0 && check_place(destination).kind == store::fault_kind::exposed) {
        throw failure{exit_status::fault, fmt::format("\"{}\" can't be made: other users can replace a folder on its "
                                                      "path: name a path that only root can change",
                                                      destination)};
    }

    struct stat info;
    const bool is_for_owner = geteuid() == 0 && stat(context.folder().c_str(), &info) == 0 && info.st_uid != 0;
    const store::fault problem =
        is_for_owner ? backup_for_owner(context, destination, info)
                     : store::writer::backup(context.folder().c_str(), destination.c_str(), context.map_size);
    if (problem.kind == store::fault_kind::exists) {
        const bool is_complete = lstat(destination.c_str(), &info) == 0;
        throw failure{exit_status::fault,
                      is_complete
                          ? fmt::format("\"{}\" already exists: name a new folder", destination)
                          : fmt::format("\"{}.partial\" was left by an interrupted backup: remove it", destination)};
    }
    if (problem.kind == store::fault_kind::absent && stat(context.folder().c_str(), &info) == 0) {
        throw failure{exit_status::fault, fmt::format("\"{}\" can't be made: {}", destination, store::detail(problem))};
    }
    require(context.folder(), problem);

    notice(fmt::format("copied store \"{}\" to \"{}\"", context.folder(), destination));
    return exit_status::yes;
}

}  // namespace

void add_backup(command_line &line, command_context &context)
{
    const auto destination = std::make_shared<std::string>();
    command_syntax command = line.add_command("backup", "Copy the store, while it is in use, to a new folder", examples,
                                              [&context, destination] { return backup(context, *destination); });
    command.add_argument("DIR", *destination, "the new folder").required();
}

}  // namespace pat::cli
