#include "writer/pat_snapshot.h"

#include "cli/pat_command.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_walk.h"

#include <memory>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl export > tokens.jsonl
  patctl export | jq -r 'select(.revoked_at) | .id'
  patctl export --local-revocations > revocations.jsonl)";

exit_status export_local_revocations(const context &with)
{
    store::snapshot from;
    require(with.folder(), from.open(with.enter().c_str(), with.map_size));

    const std::string key_id = key_id_of(from.info());
    output to;
    const auto write = [&](const digest &of, std::string_view id, const early_revocation &held) {
        to.text() += '{';
        write_early_fields(of, held, to.text());
        if (!id.empty()) {
            write_name("id", to.text());
            write_string(id, to.text());
        }
        if (!key_id.empty()) {
            write_name("key_id", to.text());
            write_string(key_id, to.text());
        }
        to.text() += '}';
        to.end_line();
    };
    const std::uint64_t damaged = walk(
        with, from,
        [&](const digest &of, const record &token) {
            if (token.local_revoked_at != 0 || token.denied) {
                write(of, token.id, {.local_revoked_at = token.local_revoked_at, .denied = token.denied});
            }
            return true;
        },
        [&](const digest &of, const early_revocation &held) { write(of, {}, held); });
    to.finish();

    if (damaged > 0) {
        throw failure{exit_status::fault, "the export lacks " + std::to_string(damaged)
                                              + " damaged records, which may have been revoked on this host"};
    }
    return exit_status::yes;
}

exit_status export_records(const context &with)
{
    store::snapshot from;
    require(with.folder(), from.open(with.enter().c_str(), with.map_size));

    output to;
    const std::uint64_t damaged = walk(with, from, [&](const digest &of, const record &token) {
        write_record(of, token, to.text());
        to.end_line();
        return true;
    });
    to.finish();

    if (damaged > 0) {
        throw failure{exit_status::fault, "the export lacks " + std::to_string(damaged) + " damaged records"};
    }
    return exit_status::yes;
}

}  // namespace

void add_export(CLI::App &app, context &with)
{
    CLI::App *command = app.add_subcommand("export", "Write all tokens as JSON Lines, for import");
    command->footer(examples);
    const auto is_local = std::make_shared<bool>(false);
    command->add_flag("--local-revocations", *is_local, "only what this host alone knows against tokens");
    command->callback([&with, is_local] {
        with.run = [&with, is_local] { return *is_local ? export_local_revocations(with) : export_records(with); };
    });
}

}  // namespace pat::cli
