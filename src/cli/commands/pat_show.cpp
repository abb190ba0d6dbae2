#include "cli/pat_command.h"
#include "cli/pat_description.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_text.h"
#include "cli/pat_walk.h"

#include <memory>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl show pat_7Kq2ZC0mS3wB1xYt
  patctl show --token-stdin < token)";

void show_record(const context &with, const digest &of, const record &token, output &to)
{
    const auto append = [](std::string &text, std::string_view more) {
        text += (text.empty() ? "" : " ") + printable(more);
    };

    std::string ranges;
    for_each_range(token, [&](std::string_view range) { append(ranges, range); });

    property_list list;
    list.add("id", printable(token.id));
    list.add("status", std::string{name(status_of(token, with.now))});
    list.add("subject", printable(token.subject));
    list.add("name", printable(token.name));
    list.add("scopes", printable(token.scopes));
    list.add("addresses", ranges);
    for_each_claim(token,
                   [&](const claim &one) { list.add("claim", printable(one.name) + '=' + printable(one.value)); });
    list.add("issued", show_time(token.issued_at, with.now));
    list.add("not before", show_time(token.not_before, with.now));
    list.add("expires", token.expires_at != 0 ? show_time(token.expires_at, with.now) : "never");
    list.add("revoked by source", show_time(token.revoked_at, with.now));
    list.add("revoked here", show_time(token.local_revoked_at, with.now));
    list.add("denied", token.denied ? "its source has changed it to something that can't be used" : "");
    list.add("refused", cause_of(token));
    list.add("sequence", token.sequence != 0 ? std::to_string(token.sequence) : "");
    list.add("digest", to_hex(of));
    list.write(to);
}

/// What the store has for a digest without a record, if it has something.
bool show_early(const context &with, const digest &of, store::snapshot &from, output &to)
{
    const token_key key = make_early_key(of);
    std::span<const std::byte> value;
    bool found = false;
    require(with.folder(), from.find(key, value, found));
    if (!found) {
        return false;
    }

    early_revocation early;
    if (const codec_error error = decode(key, value, early); error != codec_error::none) {
        require(with.folder(), store::from_codec(error));
    }
    if (with.json) {
        to.text() += R"({"status":"unknown")";
        write_early_fields(of, early, to.text());
        to.text() += '}';
        to.end_line();
        return true;
    }

    property_list list;
    list.add("status", "unknown: not here yet");
    list.add("revoked here", show_time(early.local_revoked_at, with.now));
    list.add("denied", early.denied ? "as it was where this was exported" : "");
    list.add("digest", to_hex(of));
    list.write(to);
    return true;
}

exit_status show(const context &with, const selection_options &options)
{
    const selection named{with, options};
    store::snapshot from;
    open(with, from);
    if (!named.fits(from.info())) {
        require(with.folder(), {store::fault_kind::wrong_pepper});
    }

    output to;
    std::uint64_t shown = 0;
    const auto show_one = [&](const digest &of, const record &token) {
        if (with.json) {
            write_json(with, of, token, to);
        } else {
            if (shown > 0) {
                to.end_line();
            }
            show_record(with, of, token, to);
        }
        shown++;
    };

    if (named.exact()) {
        const token_key key = make_token_key(*named.exact());
        std::span<const std::byte> value;
        bool found = false;
        require(with.folder(), from.find(key, value, found));
        if (found) {
            record token;
            if (const codec_error error = decode(key, value, token); error != codec_error::none) {
                require(with.folder(), store::from_codec(error));
            }
            show_one(*named.exact(), token);
        } else if (show_early(with, *named.exact(), from, to)) {
            shown++;
        }
    } else {
        walk(with, from, [&](const digest &of, const record &token) {
            if (named.matches(token)) {
                show_one(of, token);
            }
            return true;
        });
    }

    to.finish();
    if (shown == 0) {
        complain("no such token in the store");
        return exit_status::no;
    }
    return exit_status::yes;
}

}  // namespace

void add_show(CLI::App &app, context &with)
{
    const auto options = std::make_shared<selection_options>();
    CLI::App *command = app.add_subcommand("show", "Show one token");
    command->footer(examples);
    auto *which = command->add_option_group("Which", "exactly one of");
    which->add_option("ID", options->id, "the token with this id")->check(refuse_empty);
    which->add_option("--digest", options->digest_text, "the token with this digest")
        ->type_name("HEX")
        ->check(refuse_empty);
    which->add_flag("--token-stdin", options->token_on_stdin, "the token on standard input");
    which->require_option(1);
    command->callback([&with, options] { with.run = [&with, options] { return show(with, *options); }; });
}

}  // namespace pat::cli
