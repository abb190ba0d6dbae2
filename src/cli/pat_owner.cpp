#include "cli/pat_owner.h"

#include "cli/pat_failure.h"
#include "cli/pat_text.h"
#include "store/pat_environment.h"
#include "store/pat_files.h"
#include "store/pat_ownership.h"

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <system_error>

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr uid_t root = 0;
constexpr gid_t group_of_root = 0;

/// The group of a user that the host does not know: one that no known user has.
constexpr gid_t no_group = 65534;

template <typename Number>
std::optional<Number> read_number(const std::string &text)
{
    Number number = 0;
    const char *end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, number);
    return error == std::errc{} && stopped == end ? std::optional{number} : std::nullopt;
}

uid_t find_user(const std::string &name)
{
    if (const passwd *found = getpwnam(name.c_str())) {
        return found->pw_uid;
    }
    if (const auto number = read_number<uid_t>(name)) {
        return *number;
    }
    throw bad_value{fmt::format("--owner: {} is not a user of this host", quote_value(name))};
}

gid_t find_group(const std::string &name)
{
    if (const group *found = getgrnam(name.c_str())) {
        return found->gr_gid;
    }
    if (const auto number = read_number<gid_t>(name)) {
        return *number;
    }
    throw bad_value{fmt::format("--group: {} is not a group of this host", quote_value(name))};
}

gid_t group_of(uid_t user)
{
    const passwd *found = getpwuid(user);
    return found != nullptr ? found->pw_gid : no_group;
}

[[noreturn]] void refuse_folder(const std::string &folder, int code)
{
    throw failure{exit_status::fault, fmt::format("store \"{}\" can't be made: {}", folder, error_text(code))};
}

constexpr mode_t private_mode = 0700;

/// Makes the folder and those above it in a child that is this user; returns what errno says.
int make_folder_as(uid_t user, const std::string &folder)
{
    const pid_t child = fork();
    if (child == 0) {
        try {
            become(user);
            make_parents(folder);
        } catch (const failure &) {
            std::_Exit(EACCES);
        }
        std::_Exit(mkdir(folder.c_str(), private_mode) == 0 || errno == EEXIST ? 0 : errno);
    }

    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child < 0 ? errno : WIFEXITED(status) ? WEXITSTATUS(status) : ECANCELED;
}

}  // namespace

void become(uid_t user)
{
    const passwd *found = getpwuid(user);
    const gid_t group = found != nullptr ? found->pw_gid : no_group;
    const bool has_groups = found != nullptr ? initgroups(found->pw_name, group) == 0 : setgroups(0, nullptr) == 0;

    if (!has_groups || setresgid(group, group, group) != 0 || setresuid(user, user, user) != 0) {
        throw failure{exit_status::fault,
                      fmt::format("root can't become user {}, who owns the store: {}", user, error_text(errno))};
    }
}

void become_owner_of(const std::string &folder)
{
    if (geteuid() != root) {
        return;
    }

    // The path may change later without harm: another user's rights limit this process, and root's own store is checked
    // again when it is opened. But a third user must not have led root to the store of this one.
    struct stat info;
    if (stat(folder.c_str(), &info) == 0 && info.st_uid != root) {
        require(folder, store::check_way(folder.c_str(), info.st_uid));
        become(info.st_uid);
    }
}

std::filesystem::path folder_above(const std::string &folder)
{
    const std::filesystem::path path = std::filesystem::absolute(folder);
    return path.has_filename() ? path.parent_path() : path.parent_path().parent_path();
}

store::fault check_place(const std::string &folder)
{
    std::filesystem::path above = folder_above(folder);
    std::error_code unknown;
    while (!std::filesystem::exists(above, unknown) && above.has_relative_path()) {
        above = above.parent_path();
    }
    // check_way() does not check the last folder, so go a step further.
    return store::check_way((above / ".").c_str(), root);
}

void make_parents(const std::string &folder)
{
    const std::filesystem::path above = folder_above(folder);

    constexpr mode_t writable_by_others = 022;
    const mode_t former = umask(writable_by_others);
    std::error_code error;
    std::filesystem::create_directories(above, error);
    umask(former);

    if (error) {
        throw failure{exit_status::fault,
                      fmt::format("folder \"{}\" can't be made: {}", above.string(), error.message())};
    }
}

new_owner read_owner(const std::string &user_name, const std::string &group_name, const std::string &folder)
{
    new_owner result{geteuid(), {}};
    if (!group_name.empty()) {
        result.group = find_group(group_name);
    }
    const bool is_for_others = result.group.value_or(group_of_root) != group_of_root;

    if (!user_name.empty()) {
        result.user = find_user(user_name);
        if (result.user != geteuid() && geteuid() != root) {
            throw bad_value{"--owner: only root can make a store for another user"};
        }
        if (result.user == root && is_for_others) {
            throw bad_value{"--owner: root opens no store that a group may use: name another user"};
        }
        return result;
    }
    if (geteuid() != root) {
        return result;
    }

    struct stat info;
    if (stat(folder.c_str(), &info) == 0 && info.st_uid != root) {
        result.user = info.st_uid;
    } else if (const passwd *found = getpwnam(store::default_owner)) {
        result.user = found->pw_uid;
    } else if (is_for_others) {
        throw bad_value{
            fmt::format("--owner: root opens no store that a group may use: name the user that will own it, "
                        "or make the default one (\"useradd --system {}\")",
                        store::default_owner)};
    }
    return result;
}

void make_folder_for(const new_owner &owner, const std::string &folder)
{
    if (check_place(folder).kind == store::fault_kind::exposed) {
        if (const int code = make_folder_as(owner.user, folder); code != 0) {
            refuse_folder(folder, code);
        }
    } else {
        make_parents(folder);
        if (mkdir(folder.c_str(), private_mode) != 0 && errno != EEXIST) {
            refuse_folder(folder, errno);
        }
    }

    // Work by descriptor from here on, whatever the path leads to later.
    const store::descriptor found{open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    struct stat info;
    if (found.get() < 0 || fstat(found.get(), &info) != 0) {
        refuse_folder(folder, errno);
    }

    if (info.st_uid == root) {
        require(folder, store::check_way(folder.c_str(), root));
        if (!std::filesystem::is_empty(fmt::format("/proc/self/fd/{}", found.get()))) {
            const bool has_store = faccessat(found.get(), store::data_file, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
            require(folder, {has_store ? store::fault_kind::exists : store::fault_kind::not_empty});
        }
    } else if (info.st_uid != owner.user) {
        throw failure{exit_status::fault,
                      fmt::format("store \"{}\" can't be made for user {}: the folder belongs to user {}", folder,
                                  owner.user, info.st_uid)};
    }

    const bool takes_group = info.st_uid == root || owner.group.has_value();
    const gid_t group = owner.group.value_or(group_of(owner.user));
    if (takes_group && (fchown(found.get(), owner.user, group) != 0 || fchmod(found.get(), store::folder_mode) != 0)) {
        refuse_folder(folder, errno);
    }
    become(owner.user);
}

}  // namespace pat::cli
