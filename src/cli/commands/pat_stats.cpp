#include "writer/pat_held.h"
#include "writer/pat_snapshot.h"

#include "cli/pat_command.h"
#include "cli/pat_description.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_text.h"
#include "cli/pat_walk.h"

#include <cerrno>
#include <map>

#include <CLI/CLI.hpp>
#include <sys/stat.h>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl stats
  patctl stats --json | jq .heartbeat_age)";

/// The figures of a store, under their names in JSON and in the list for people.
exit_status stats(const command_context &context)
{
    store::snapshot snapshot;
    open(context, snapshot);

    store::statistics file;
    require(context.folder(), snapshot.stat(file));

    struct stat data;
    const std::string path = context.folder() + '/' + store::data_file;
    if (::stat(path.c_str(), &data) != 0) {
        require(context.folder(), store::from_errno(errno));
    }
    const auto size = static_cast<std::uint64_t>(data.st_size);
    const std::uint64_t used = file.used_pages * file.page_size;

    std::map<access_verdict, std::uint64_t> count;
    std::uint64_t early = 0;
    std::uint64_t blank = 0;
    std::uint64_t tombstones = file.entries;
    const std::uint64_t damaged = walk(
        context, snapshot,
        [&](const token_digest &, const token_record &token) {
            count[status_of(token, context.now)]++;
            blank += has_blank_ends(token.subject) ? 1 : 0;
            tombstones--;
            return true;
        },
        [&](const token_digest &, const early_revocation &) { early++; });
    std::span<const std::byte> held_bytes;
    bool is_held = false;
    store::held_snapshot held;
    require(context.folder(), snapshot.find(store::held_key(), held_bytes, is_held));
    tombstones -= damaged + early + (is_held ? 1 : 0);
    is_held = is_held && store::decode(held_bytes, held) == codec_error::none;

    const meta_record &info = snapshot.info();
    const bool has_pepper = info.scheme == digest_scheme::hmac_sha256;
    output_stream output;

    if (context.json) {
        std::string &text = output.text();
        const auto number = [&](const char *name, std::uint64_t value) {
            text += std::string{",\""} + name + "\":" + std::to_string(value);
        };
        const auto string = [&](const char *name, std::string_view value) {
            text += std::string{",\""} + name + "\":";
            write_string(value, text);
        };

        text += R"({"store":)";
        write_string(context.folder(), text);
        string("scheme", word_for(info.scheme));
        if (has_pepper) {
            string("key_id", to_hex(info.key));
        }
        string("state", name(info.state));
        for (const access_verdict verdict :
             {access_verdict::ok, access_verdict::expired, access_verdict::revoked, access_verdict::not_yet_valid}) {
            number(std::string{name(verdict)}.c_str(), count[verdict]);
        }
        number("blank_subjects", blank);
        number("damaged", damaged);
        number("tombstones", tombstones);
        number("early_revocations", early);
        number("meta_tokens", info.tokens);
        number("meta_revoked", info.revoked);
        number("last_sequence", info.last_sequence);
        string("epoch", info.epoch);
        string("cursor", info.cursor);
        if (info.heartbeat != 0) {
            number("heartbeat", static_cast<std::uint64_t>(info.heartbeat));
            text += ",\"heartbeat_age\":" + std::to_string(context.now - info.heartbeat);
        } else {
            text += R"(,"heartbeat":null,"heartbeat_age":null)";
        }
        if (is_held) {
            text += std::string{",\"held_snapshot\":{\"accepted\":"} + (held.is_accepted ? "true" : "false")
                    + ",\"first\":" + (held.is_first ? "true" : "false");
            number("since", static_cast<std::uint64_t>(held.held_at));
            number("received", held.received);
            number("removed", held.removed);
            number("tokens", held.tokens);
            string("epoch", held.epoch);
            text += '}';
        }
        number("file_size", size);
        number("used_size", used);
        number("map_size", file.map_size);
        number("page_size", file.page_size);
        number("depth", file.depth);
        number("commit", file.commit);
        number("readers", file.readers);
        number("max_readers", file.max_readers);
        text += '}';
        output.end_line();
        output.finish();
        return exit_status::yes;
    }

    property_list list;
    list.add("store", printable(context.folder()));
    list.add("digests", has_pepper ? "HMAC-SHA-256, pepper " + to_hex(info.key) : "SHA-256");
    list.add("state", std::string{name(info.state)});
    for (const access_verdict verdict :
         {access_verdict::ok, access_verdict::expired, access_verdict::revoked, access_verdict::not_yet_valid}) {
        list.add(std::string{name(verdict)}, std::to_string(count[verdict]));
    }
    list.add("blank subjects", blank != 0 ? std::to_string(blank) + ", which are refused" : "");
    list.add("damaged", std::to_string(damaged));
    list.add("tombstones", std::to_string(tombstones));
    list.add("revoked early", std::to_string(early));
    list.add("by its own count", std::to_string(info.tokens) + " tokens, " + std::to_string(info.revoked) + " revoked");
    list.add("last sequence", std::to_string(info.last_sequence));
    list.add("epoch", printable(info.epoch));
    list.add("cursor", printable(info.cursor));
    list.add("heartbeat", info.heartbeat != 0 ? show_time(info.heartbeat, context.now) : "never: no source");
    if (is_held) {
        list.add(held.is_accepted ? "accepted snapshot" : "held snapshot",
                 held.is_first ? "the first of a source, over " + std::to_string(held.tokens) + " tokens of this host"
                               : std::to_string(held.received) + " tokens; would remove " + std::to_string(held.removed)
                                     + " of " + std::to_string(held.tokens));
    }
    list.add("file", std::to_string(size) + " bytes");
    list.add("map", std::to_string(used) + " of " + std::to_string(file.map_size) + " bytes used");
    list.add("depth", std::to_string(file.depth));
    list.add("commit", std::to_string(file.commit));
    list.add("readers", "up to " + std::to_string(file.readers) + " at a time, of " + std::to_string(file.max_readers));
    list.write(output);
    output.finish();
    return exit_status::yes;
}

}  // namespace

void add_stats(CLI::App &app, command_context &context)
{
    CLI::App *command = app.add_subcommand("stats", "Count tokens by state, and tell about the store");
    command->footer(examples);
    command->callback([&context] { context.run = [&context] { return stats(context); }; });
}

}  // namespace pat::cli
