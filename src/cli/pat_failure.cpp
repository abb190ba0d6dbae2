#include "store/pat_environment.h"
#include "store/pat_ownership.h"

#include "cli/pat_failure.h"
#include "cli/pat_text.h"

#include <cstdio>
#include <system_error>

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pat::cli {

namespace {

std::string name_of_user(uid_t user)
{
    const passwd *found = getpwuid(user);
    return found != nullptr ? found->pw_name : fmt::format("{}", user);
}

}  // namespace

std::string explain(const std::string &folder)
{
    const store::refusal refusal = store::find_refusal(folder.c_str());
    const auto sentence = [&](const char *verb, const std::string &path) {
        return fmt::format(": user \"{}\" may not {} \"{}\", which belongs to user \"{}\"", name_of_user(geteuid()),
                           verb, path, name_of_user(refusal.user));
    };

    switch (refusal.part) {
    case store::store_part::none: break;
    case store::store_part::way: {
        const std::string path = folder.substr(0, refusal.way_length);
        struct stat found {};
        // It leads where the user may not go, or another user made it in a folder like /tmp (fs.protected_symlinks).
        if (lstat(path.c_str(), &found) == 0 && S_ISLNK(found.st_mode)) {
            return fmt::format(": user \"{}\" may not follow the link \"{}\"", name_of_user(geteuid()), path);
        }
        return sentence("enter", path);
    }
    case store::store_part::open_lock: return sentence("read", folder + '/' + store::open_lock_file);
    case store::store_part::data: return sentence("read", folder + '/' + store::data_file);
    case store::store_part::lock: return sentence("write", folder + '/' + store::lock_file);
    }
    return {};
}

std::string describe(const std::string &folder, store::fault problem)
{
    std::string text = fmt::format("store \"{}\": {}", folder, store::fault_text{problem}.text());
    if (problem.kind == store::fault_kind::shared) {
        text += fmt::format(": {}", store::repair_command(folder.c_str()).text());
    }
    if (problem.kind == store::fault_kind::denied || problem.kind == store::fault_kind::no_lock_file) {
        text += explain(folder);
    }
    return text;
}

void require(const std::string &folder, store::fault problem)
{
    if (problem) {
        throw failure{exit_status::fault, describe(folder, problem)};
    }
}

void notice(const std::string &text) noexcept
{
    std::fprintf(stderr, "patctl: %s\n", printable(text).c_str());
}

void warning(const std::string &text) noexcept
{
    std::fprintf(stderr, "patctl: warning: %s\n", printable(text).c_str());
}

void error(const std::string &text) noexcept
{
    notice(text);
}

std::string error_text(int code)
{
    return std::generic_category().message(code);
}

}  // namespace pat::cli
