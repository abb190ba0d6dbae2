#pragma once

#include "store/pat_fault.h"

#include <stdexcept>
#include <string>

#include <fmt/core.h>

/// The exit statuses of patctl, its exceptions, and its messages on standard error.
namespace pat::cli {

enum class exit_status : int {
    yes = 0,    ///< done; the answer is yes
    no = 1,     ///< the answer is no: not valid, nothing found, damage found, lines refused
    usage = 2,  ///< the command line or a value in it is wrong
    fault = 3,  ///< the store failed, or a file that is read or written
};

/// Ends a command: `what()` goes to standard error.
class failure : public std::runtime_error {
public:
    failure(exit_status status, const std::string &text) : std::runtime_error{text}, status_{status} {}

    [[nodiscard]] exit_status status() const noexcept { return status_; }

private:
    exit_status status_;
};

/// A value that can't be used. The catcher that knows its origin puts that before the text.
class bad_value : public failure {
public:
    explicit bad_value(const std::string &text) : failure{exit_status::usage, text} {}
};

/// The words for a fault of the store in `folder`.
[[nodiscard]] std::string describe(const std::string &folder, store::fault problem);

/// What part of a store this user may not use, and its owner, behind a colon; empty if that is not the reason.
[[nodiscard]] std::string explain(const std::string &folder);

/// Throws if there is a problem.
void require(const std::string &folder, store::fault problem);

/// `patctl: text` on standard error: for what was done, or is about to be. What a terminal would act on is replaced,
/// here and in the other two.
void notice(const std::string &text) noexcept;

/// `patctl: warning: text`: for what was done, although something is wrong.
void warning(const std::string &text) noexcept;

/// `patctl: text`: for what was not done, or not found.
void error(const std::string &text) noexcept;

/// What errno says, as in `cannot open "FILE": No such file or directory`.
[[nodiscard]] std::string error_text(int code);

/// Runs `body`, and puts the name of an option or a field before the text of a bad_value.
template <typename Body>
auto with_name(const char *name, const Body &body)
{
    try {
        return body();
    } catch (const bad_value &bad) {
        throw bad_value{fmt::format("{}: {}", name, bad.what())};
    }
}

}  // namespace pat::cli
