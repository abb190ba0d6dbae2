#include "store/pat_environment.h"
#include "store/pat_ownership.h"

#include "cli/pat_failure.h"

#include <cstdio>
#include <system_error>

#include <pwd.h>
#include <unistd.h>

namespace pat::cli {

namespace {

std::string name_of_user(uid_t user)
{
    const passwd *found = getpwuid(user);
    return found != nullptr ? found->pw_name : std::to_string(user);
}

}  // namespace

std::string explain(const std::string &folder)
{
    const store::refusal refusal = store::find_refusal(folder.c_str());
    const std::string user = ": user \"" + name_of_user(geteuid()) + "\" may not ";
    const std::string owner = "\", which belongs to user \"" + name_of_user(refusal.user) + '"';
    switch (refusal.part) {
    case store::store_part::none: break;
    case store::store_part::way: return user + "enter \"" + folder.substr(0, refusal.way_length) + owner;
    case store::store_part::open_lock: return user + "read \"" + folder + '/' + store::open_lock_file + owner;
    case store::store_part::data: return user + "read \"" + folder + '/' + store::data_file + owner;
    case store::store_part::lock: return user + "write \"" + folder + '/' + store::lock_file + owner;
    }
    return {};
}

std::string describe(const std::string &folder, store::fault problem)
{
    std::string text = "store \"" + folder + "\": " + store::message(problem);

    const std::string detail = store::detail(problem);
    if (!detail.empty()) {
        text += ": " + detail;
    }
    if (problem.kind == store::fault_kind::shared) {
        text += std::string{": "} + store::repair_command(folder.c_str()).text();
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

void complain(const std::string &text) noexcept
{
    std::fprintf(stderr, "patctl: %s\n", text.c_str());
}

std::string error_text(int code)
{
    return std::generic_category().message(code);
}

}  // namespace pat::cli
