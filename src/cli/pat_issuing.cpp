#include "cli/pat_issuing.h"

#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_secret.h"
#include "cli/pat_time.h"

#include <algorithm>
#include <cerrno>
#include <csignal>

#include <unistd.h>

namespace pat::cli {

namespace {

/// A text that is wiped when it goes out of scope.
struct secret_text {
    std::string text;
    ~secret_text() { OPENSSL_cleanse(text.data(), text.size()); }
};

}  // namespace

fresh_token::fresh_token(std::string_view prefix)
{
    auto issued = generate_token(prefix, kernel_random, nullptr);
    if (!issued) {
        throw failure{exit_status::fault, "the kernel gave no random bytes"};
    }
    token_ = *issued;
    OPENSSL_cleanse(&*issued, sizeof *issued);
}

std::string issued_prefix(std::string_view token)
{
    constexpr std::size_t rest = random_length + checksum_length;
    const std::string_view prefix = token.substr(0, token.size() - std::min(rest, token.size()));
    return is_prefix(prefix) && is_issued_form(token, prefix) ? std::string{prefix} : std::string{};
}

std::string generate_id()
{
    // The characters are those of a token that is thrown away.
    constexpr std::size_t length = 16;
    return "pat_" + std::string{fresh_token{default_prefix}.text().substr(default_prefix.size(), length)};
}

std::int64_t read_lifetime(const std::string &text)
{
    const std::int64_t lifetime = with_name("--expires-in", [&] { return parse_duration(text); });
    if (lifetime == 0) {
        throw bad_value{"--expires-in: a token must be valid for at least a second"};
    }
    return lifetime;
}

void prepare_to_issue(const command_context &context, const std::string &prefix)
{
    constexpr std::int64_t year_2020 = 1577836800;
    if (context.now < year_2020) {
        throw failure{exit_status::fault, fmt::format("the clock says {}: set it first", format_time(context.now))};
    }
    if (!is_prefix(prefix)) {
        throw bad_value{"--prefix: 1 to 32 letters, digits, \"_\", \"-\" and \".\""};
    }

    // Report a broken standard output before the token is issued if possible, or else afterwards.
    std::signal(SIGPIPE, SIG_IGN);
    if (write(STDOUT_FILENO, "", 0) < 0) {
        throw failure{exit_status::fault, fmt::format("standard output: {}; no token was issued", error_text(errno))};
    }
}

void print_token(std::string_view token, const token_record &issued, bool json)
{
    // Reserved for the worst case of JSON, so that no copy of the token is left where the string has grown out of.
    secret_text line;
    line.text.reserve(8 * max_record_length);
    if (json) {
        json_object object{std::move(line.text)};
        line.text = add_properties(issued, object.text("token", token)).line();
    } else {
        line.text += token;
        line.text += '\n';
    }

    try {
        write_out(line.text);
    } catch (const failure &problem) {
        throw failure{exit_status::fault,
                      fmt::format("{}; the token was issued but could not be handed over: revoke it "
                                  "with \"patctl revoke {}\"",
                                  problem.what(), issued.id)};
    }
}

std::string describe_end(std::int64_t expires_at)
{
    return expires_at != 0 ? "valid until " + format_time(expires_at) : "which never expires";
}

}  // namespace pat::cli
