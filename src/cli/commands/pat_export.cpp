#include "writer/pat_snapshot.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_walk.h"

#include <memory>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl export > tokens.jsonl
  patctl export | jq -r 'select(.revoked_at) | .id'
  patctl export --local-revocations > revocations.jsonl)";

exit_status export_local_revocations(const command_context &context)
{
    store::snapshot snapshot;
    require(context.folder(), snapshot.open(context.enter().c_str(), context.map_size));

    const std::string key_id = key_id_of(snapshot.info());
    output_stream output;
    const auto write = [&](const token_digest &digest, std::string_view id, const early_revocation &held) {
        json_object json;
        add_early_fields(digest, held, json);
        if (!id.empty()) {
            json.text("id", id);
        }
        if (!key_id.empty()) {
            json.text("key_id", key_id);
        }
        output.add_line(json.line());
    };
    const std::uint64_t damaged = walk(
        context, snapshot,
        [&](const token_digest &digest, const token_record &token) {
            if (token.local_revoked_at != 0 || token.denied) {
                write(digest, token.id, {.local_revoked_at = token.local_revoked_at, .denied = token.denied});
            }
            return true;
        },
        [&](const token_digest &digest, const early_revocation &held) { write(digest, {}, held); });
    output.finish();

    if (damaged > 0) {
        throw failure{
            exit_status::fault,
            fmt::format("the export lacks {} damaged records, which may have been revoked on this host", damaged)};
    }
    return exit_status::yes;
}

exit_status export_records(const command_context &context)
{
    store::snapshot snapshot;
    require(context.folder(), snapshot.open(context.enter().c_str(), context.map_size));

    output_stream output;
    const std::uint64_t damaged = walk(context, snapshot, [&](const token_digest &digest, const token_record &token) {
        json_object json;
        output.add_line(add_fields(digest, token, json).line());
        return true;
    });
    output.finish();

    if (damaged > 0) {
        throw failure{exit_status::fault, fmt::format("the export lacks {} damaged records", damaged)};
    }
    return exit_status::yes;
}

}  // namespace

void add_export(command_line &line, command_context &context)
{
    const auto is_local = std::make_shared<bool>(false);
    command_syntax command =
        line.add_command("export", "Write all tokens as JSON Lines, for import", examples, [&context, is_local] {
            return *is_local ? export_local_revocations(context) : export_records(context);
        });
    command.add_flag("--local-revocations", *is_local, "only the revocations that this host alone knows");
}

}  // namespace pat::cli
