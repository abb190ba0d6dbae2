#include "cli/pat_command.h"
#include "cli/pat_description.h"
#include "cli/pat_output.h"
#include "cli/pat_text.h"
#include "cli/pat_time.h"
#include "cli/pat_walk.h"

#include <memory>
#include <optional>
#include <vector>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl list --subject user:42
  patctl list --status ok --limit 20
  patctl list --json | jq -r 'select(.expires_at < now + 86400) | .id')";

struct list_options {
    std::string subject;
    std::string status;
    std::uint64_t limit = 0;
};

exit_status list(const command_context &context, const list_options &options)
{
    store::snapshot snapshot;
    open(context, snapshot);

    output_stream output;
    std::optional<table> rows;
    if (!context.json) {
        rows.emplace(output, std::vector<std::string>{"ID", "STATUS", "SUBJECT", "EXPIRES", "SCOPES", "NAME"});
    }

    std::uint64_t listed = 0;
    walk(context, snapshot, [&](const token_digest &digest, const token_record &token) {
        const std::string_view status = name(status_of(token, context.now));
        if ((!options.subject.empty() && token.subject != options.subject)
            || (!options.status.empty() && status != options.status)) {
            return true;
        }

        if (context.json) {
            write_json(context, digest, token, output);
        } else {
            const std::string subject = printable(token.subject);
            rows->add({printable(token.id), std::string{status},
                       has_blank_ends(subject) ? fmt::format("\"{}\" (blank ends)", subject) : subject,
                       token.expires_at != 0 ? format_time(token.expires_at) : "never", printable(token.scopes),
                       printable(token.name)});
        }
        return ++listed != options.limit;
    });

    if (rows) {
        rows->finish();
    }
    output.finish();
    return exit_status::yes;
}

}  // namespace

void add_list(CLI::App &app, command_context &context)
{
    const auto options = std::make_shared<list_options>();
    CLI::App *command = app.add_subcommand("list", "List tokens");
    command->footer(examples);
    command->add_option("--subject", options->subject, "only those of this subject")
        ->type_name("S")
        ->check(refuse_empty);
    command->add_option("--status", options->status, "only those with this status")
        ->check(CLI::IsMember({"ok", "expired", "revoked", "not_yet_valid"}));
    command->add_option("--limit", options->limit, "at most N tokens")
        ->type_name("N")
        ->check(CLI::Range(std::uint64_t{1}, UINT64_MAX));
    command->callback([&context, options] { context.run = [&context, options] { return list(context, *options); }; });
}

}  // namespace pat::cli
