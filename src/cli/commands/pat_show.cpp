#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_description.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_text.h"
#include "cli/pat_walk.h"

#include <memory>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl show pat_7Kq2ZC0mS3wB1xYt
  patctl show --token-stdin < token)";

void show_record(const command_context &context, const token_digest &digest, const token_record &token,
                 output_stream &output)
{
    const auto append = [](std::string &text, std::string_view more) {
        text += (text.empty() ? "" : " ") + printable(more);
    };

    std::string cidrs;
    for_each_cidr(token, [&](std::string_view cidr) { append(cidrs, cidr); });

    property_list list;
    list.add("id", printable(token.id));
    list.add("status", std::string{name(status_of(token, context.now))});
    list.add("subject", printable(token.subject));
    list.add("name", printable(token.name));
    list.add("scopes", printable(token.scopes));
    list.add("addresses", cidrs);
    for_each_claim(token, [&](const token_claim &claim) {
        list.add("claim", fmt::format("{}={}", printable(claim.name), printable(claim.value)));
    });
    list.add("issued", show_time(token.issued_at, context.now));
    list.add("not before", show_time(token.not_before, context.now));
    list.add("expires", token.expires_at != 0 ? show_time(token.expires_at, context.now) : "never");
    list.add("revoked by source", show_time(token.revoked_at, context.now));
    list.add("revoked here", show_time(token.local_revoked_at, context.now));
    list.add("denied", token.denied ? "its source has changed it to something that can't be used" : "");
    list.add("refused", cause_of(token));
    list.add("sequence", token.sequence != 0 ? fmt::format("{}", token.sequence) : "");
    list.add("digest", to_hex(digest));
    list.write(output);
}

/// Shows the early revocation of a digest that has no record; false if there is none.
bool show_early(const command_context &context, const token_digest &digest, store::snapshot &snapshot,
                output_stream &output)
{
    const token_key key = make_early_key(digest);
    std::span<const std::byte> value;
    bool found = false;
    require(context.folder(), snapshot.find(key, value, found));
    if (!found) {
        return false;
    }

    early_revocation early;
    if (const codec_error error = decode(key, value, early); error != codec_error::none) {
        require(context.folder(), store::from_codec(error));
    }
    if (context.json) {
        json_object json;
        output.add_line(add_early_fields(digest, early, json.text("status", "unknown")).line());
        return true;
    }

    property_list list;
    list.add("status", "unknown: not here yet");
    list.add("revoked here", show_time(early.local_revoked_at, context.now));
    list.add("denied", early.denied ? "as it was where this was exported" : "");
    list.add("digest", to_hex(digest));
    list.write(output);
    return true;
}

exit_status show(const command_context &context, const selection_options &options)
{
    const selection named{context, options};
    store::snapshot snapshot;
    open(context, snapshot);
    if (!named.fits(snapshot.info())) {
        require(context.folder(), {store::fault_kind::wrong_pepper});
    }

    output_stream output;
    std::uint64_t shown = 0;
    const auto print = [&](const token_digest &digest, const token_record &token) {
        if (context.json) {
            write_json(context, digest, token, output);
        } else {
            if (shown > 0) {
                output.end_line();
            }
            show_record(context, digest, token, output);
        }
        shown++;
    };

    if (named.exact()) {
        const token_key key = make_token_key(*named.exact());
        std::span<const std::byte> value;
        bool found = false;
        require(context.folder(), snapshot.find(key, value, found));
        if (found) {
            token_record token;
            if (const codec_error error = decode(key, value, token); error != codec_error::none) {
                require(context.folder(), store::from_codec(error));
            }
            print(*named.exact(), token);
        } else if (show_early(context, *named.exact(), snapshot, output)) {
            shown++;
        }
    } else {
        walk(context, snapshot, [&](const token_digest &digest, const token_record &token) {
            if (named.matches(token)) {
                print(digest, token);
            }
            return true;
        });
    }

    output.finish();
    if (shown == 0) {
        error(not_in_store(named));
        return exit_status::no;
    }
    return exit_status::yes;
}

}  // namespace

void add_show(command_line &line, command_context &context)
{
    const auto options = std::make_shared<selection_options>();
    command_syntax command =
        line.add_command("show", "Show one token", examples, [&context, options] { return show(context, *options); });
    add_selection(command, *options, selection_scope::one_token);
}

}  // namespace pat::cli
