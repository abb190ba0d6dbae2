#include "writer/pat_held.h"
#include "writer/pat_snapshot.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_description.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_text.h"
#include "cli/pat_walk.h"

#include <cerrno>
#include <map>

#include <sys/stat.h>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl stats
  patctl stats --json | jq .heartbeat_age)";

/// The figures of a store, each under its name in JSON and under its label in the list for people. One without a label
/// is only in JSON, and one without a text is not listed.
class figures {
public:
    void text(const char *name, std::string_view value, const char *label, std::string shown)
    {
        json_.text(name, value);
        list_.add(label, std::move(shown));
    }

    void number(const char *name, std::uint64_t value, const char *label, std::string shown)
    {
        json_.number(name, value);
        list_.add(label, std::move(shown));
    }

    void number(const char *name, std::uint64_t value, const char *label = "")
    {
        number(name, value, label, *label != '\0' ? fmt::format("{}", value) : "");
    }

    /// A time, and its age.
    void heartbeat(std::int64_t time, std::int64_t now)
    {
        if (time != 0) {
            json_.number("heartbeat", time).number("heartbeat_age", now - time);
        } else {
            json_.null("heartbeat").null("heartbeat_age");
        }
        list_.add("heartbeat", time != 0 ? show_time(time, now) : "never: no source");
    }

    void held(const store::held_snapshot &held)
    {
        json_object json;
        json.truth("accepted", held.is_accepted)
            .truth("first", held.is_first)
            .number("since", held.held_at)
            .number("received", held.received)
            .number("removed", held.removed)
            .number("tokens", held.tokens)
            .text("epoch", held.epoch);
        json_.object("held_snapshot", std::move(json));
        list_.add(held.is_accepted ? "accepted snapshot" : "held snapshot",
                  held.is_first
                      ? fmt::format("the first of a source, over {} tokens of this host", held.tokens)
                      : fmt::format("{} tokens; would remove {} of {}", held.received, held.removed, held.tokens));
    }

    void write(bool json)
    {
        output_stream output;
        if (json) {
            output.add_line(json_.line());
        } else {
            list_.write(output);
        }
        output.finish();
    }

private:
    json_object json_;
    property_list list_;
};

/// What a walk through a store counts.
struct entry_counts {
    std::map<access_verdict, std::uint64_t> tokens;
    std::uint64_t blank_subjects = 0;
    std::uint64_t other_format = 0;
    std::uint64_t damaged = 0;
    std::uint64_t early_revocations = 0;
};

entry_counts count_entries(const command_context &context, store::snapshot &snapshot)
{
    entry_counts result;
    result.damaged = walk(
        context, snapshot,
        [&](const token_digest &, const token_record &token) {
            result.tokens[status_of(token, context.now)]++;
            result.blank_subjects += has_blank_ends(token.subject) ? 1 : 0;
            result.other_format += token.format != snapshot.info().format ? 1 : 0;
            return true;
        },
        [&](const token_digest &, const early_revocation &) { result.early_revocations++; });
    return result;
}

std::uint64_t data_file_bytes(const std::string &folder)
{
    struct stat data;
    if (::stat((folder + '/' + store::data_file).c_str(), &data) != 0) {
        require(folder, store::from_errno(errno));
    }
    return static_cast<std::uint64_t>(data.st_size);
}

exit_status stats(const command_context &context)
{
    store::snapshot snapshot;
    open(context, snapshot);

    store::statistics file;
    require(context.folder(), snapshot.stat(file));
    const std::uint64_t file_bytes = data_file_bytes(context.folder());
    const std::uint64_t used_bytes = file.used_pages * file.page_size;

    entry_counts count = count_entries(context, snapshot);
    std::uint64_t tombstones = file.entries - count.damaged - count.early_revocations;
    for (const auto &[verdict, tokens] : count.tokens) {
        tombstones -= tokens;
    }
    std::span<const std::byte> held_bytes;
    bool is_held = false;
    require(context.folder(), snapshot.find(store::held_key(), held_bytes, is_held));
    tombstones -= is_held ? 1 : 0;

    const meta_record &meta = snapshot.info();
    const std::string key_id = key_id_of(meta);
    figures result;
    result.text("store", context.folder(), "store", printable(context.folder()));
    result.number("format", meta.format, "format", describe_format(meta, count.other_format));
    result.number("other_format", count.other_format);
    result.text("scheme", word_for(meta.scheme), "digests",
                key_id.empty() ? "SHA-256" : "HMAC-SHA-256, pepper " + key_id);
    if (!key_id.empty()) {
        result.text("key_id", key_id, "", {});
    }
    result.text("state", name(meta.state), "state", std::string{name(meta.state)});
    for (const access_verdict verdict :
         {access_verdict::ok, access_verdict::expired, access_verdict::revoked, access_verdict::not_yet_valid}) {
        result.number(name(verdict).data(), count.tokens[verdict], name(verdict).data());
    }
    result.number("blank_subjects", count.blank_subjects, "blank subjects",
                  count.blank_subjects != 0 ? fmt::format("{}, which are refused", count.blank_subjects) : "");
    result.number("damaged", count.damaged, "damaged");
    result.number("tombstones", tombstones, "tombstones");
    result.number("early_revocations", count.early_revocations, "revoked early");
    result.number("meta_tokens", meta.tokens, "by its own count",
                  fmt::format("{} tokens, {} revoked", meta.tokens, meta.revoked));
    result.number("meta_revoked", meta.revoked);
    result.number("last_sequence", meta.last_sequence, "last sequence");
    result.text("epoch", meta.epoch, "epoch", printable(meta.epoch));
    result.text("cursor", meta.cursor, "cursor", printable(meta.cursor));
    result.heartbeat(meta.heartbeat, context.now);
    if (store::held_snapshot held; is_held && store::decode(held_bytes, held) == codec_error::none) {
        result.held(held);
    }
    result.number("file_size", file_bytes, "file", fmt::format("{} bytes", file_bytes));
    result.number("used_size", used_bytes, "map", fmt::format("{} of {} bytes used", used_bytes, file.map_size));
    result.number("map_size", file.map_size);
    result.number("page_size", file.page_size);
    result.number("depth", file.depth, "depth");
    result.number("commit", file.commit, "commit");
    result.number("readers", file.readers, "readers",
                  fmt::format("up to {} at a time, of {}", file.readers, file.max_readers));
    result.number("max_readers", file.max_readers);
    result.write(context.json);
    return exit_status::yes;
}

}  // namespace

void add_stats(command_line &line, command_context &context)
{
    line.add_command("stats", "Count tokens by status, and describe the store", examples,
                     [&context] { return stats(context); });
}

}  // namespace pat::cli
