#include "cli/pat_failure.h"

#include <cstdio>
#include <system_error>

namespace pat::cli {

std::string describe(const std::string &folder, store::fault problem)
{
    std::string text = "store \"" + folder + "\": " + store::message(problem);

    const std::string detail = store::detail(problem);
    if (!detail.empty()) {
        text += ": " + detail;
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
