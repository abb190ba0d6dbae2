#include "core/pat_policy.h"
#include "core/pat_token.h"
#include "store/pat_reader.h"
#include "writer/pat_held.h"
#include "writer/pat_snapshot.h"

#include "cli/pat_command.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_secret.h"
#include "cli/pat_text.h"
#include "cli/pat_time.h"
#include "cli/pat_walk.h"

#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <vector>

#include <CLI/CLI.hpp>
#include <sys/stat.h>

namespace pat::cli {

namespace {

/// The verdict on a token as such: whatever the address it comes from and the scope it is used for.
verdict status_of(record token, std::int64_t now)
{
    token.ranges = {};
    return decide(token, {}, now);
}

/// Why a token is refused that nobody revoked; empty if it is not.
const char *cause_of(const record &token) noexcept
{
    return has_blank_ends(token.subject) ? "its subject begins or ends with a blank, which an upstream would strip"
           : has_control(token.subject)  ? "its subject has a control character, which no upstream is told"
                                         : "";
}

void open(const context &with, store::snapshot &out)
{
    require(with.folder(), out.open(with.enter().c_str(), with.map_size));
}

void write_json(const context &with, const digest &of, const record &token, output &to)
{
    to.text() += R"({"status":)";
    write_string(name(status_of(token, with.now)), to.text());
    if (const char *cause = cause_of(token); *cause != '\0') {
        write_name("cause", to.text());
        write_string(cause, to.text());
    }
    write_fields(of, token, to.text());
    to.text() += '}';
    to.end_line();
}

/// A time, and how far it is from now; empty if it is not set.
std::string show_time(std::int64_t time, std::int64_t now)
{
    if (time == 0) {
        return {};
    }
    return format_time(time)
           + (time > now ? " (in " + format_duration(time - now) + ')' : " (" + format_duration(now - time) + " ago)");
}

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

struct list_options {
    std::string subject;
    std::string status;
    std::uint64_t limit = 0;
};

exit_status list(const context &with, const list_options &options)
{
    store::snapshot from;
    open(with, from);

    output to;
    std::optional<table> rows;
    if (!with.json) {
        rows.emplace(to, std::vector<std::string>{"ID", "STATUS", "SUBJECT", "EXPIRES", "SCOPES", "NAME"});
    }

    std::uint64_t listed = 0;
    walk(with, from, [&](const digest &of, const record &token) {
        const std::string_view status = name(status_of(token, with.now));
        if ((!options.subject.empty() && token.subject != options.subject)
            || (!options.status.empty() && status != options.status)) {
            return true;
        }

        if (with.json) {
            write_json(with, of, token, to);
        } else {
            const std::string subject = printable(token.subject);
            rows->add({printable(token.id), std::string{status},
                       has_blank_ends(subject) ? '"' + subject + "\" (blank ends)" : subject,
                       token.expires_at != 0 ? format_time(token.expires_at) : "never", printable(token.scopes),
                       printable(token.name)});
        }
        return ++listed != options.limit;
    });

    if (rows) {
        rows->finish();
    }
    to.finish();
    return exit_status::yes;
}

struct check_options {
    std::string address;
    std::vector<std::string> scopes;
    std::string leeway = "0s";
    std::string prefix;
};

struct checked {
    verdict says;
    store::fault problem;
    record token;  ///< only of use if its id is not empty
};

checked check_token(const context &with, const check_options &options, const facts &request, std::string_view token,
                    store::reader &reader, record_buffer &memory)
{
    if (!is_token(token) || (!options.prefix.empty() && !is_issued_form(token, options.prefix))) {
        return {verdict::malformed, {}, {}};
    }

    const pepper_hasher hash{with.pepper_file};
    const auto allocate = [](void *buffer, std::size_t) noexcept -> void * {
        return static_cast<record_buffer *>(buffer)->data();
    };

    checked result{verdict::unknown, {}, {}};
    result.problem = reader.open(with.enter().c_str(), with.map_size, store::command_wait_ms);
    if (!result.problem) {
        const store::lookup_result found =
            reader.lookup(hash.get(), make_token_key(hash.get()(token)), allocate, &memory, result.token);
        result.problem = found.problem;
        if (found.found) {
            result.says = decide(result.token, request, with.now);
        }
    }
    if (result.problem) {
        result.says = verdict::store_error;
        result.token = {};
    }
    return result;
}

exit_status check(const context &with, const check_options &options)
{
    if (!options.prefix.empty() && !is_prefix(options.prefix)) {
        throw bad_value{"--prefix: 1 to 32 letters, digits, \"_\", \"-\" and \".\""};
    }

    facts request;
    request.leeway = with_name("--leeway", [&] { return parse_duration(options.leeway); });
    if (!options.address.empty()) {
        const auto peer = parse_address(options.address);
        if (!peer) {
            throw bad_value{"--address: \"" + options.address + "\" is not an address"};
        }
        request.peer = *peer;
    }
    std::vector<scope_requirement> required;
    for (const std::string &scopes : options.scopes) {
        with_name("--scope", [&] { for_each_scope_in(scopes, [](std::string_view) {}); });
        required.push_back({scopes});
    }
    request.required = required;
    static_cast<void>(with.folder());

    presented_token token;
    read_token(token);

    store::reader reader;
    record_buffer memory;
    const checked result = check_token(with, options, request, token.text(), reader, memory);

    output to;
    if (with.json) {
        to.text() += R"({"status":)";
        write_string(name(result.says), to.text());
        if (!result.token.id.empty()) {
            write_properties(result.token, to.text());
        }
        to.text() += '}';
    } else {
        to.text() += name(result.says);
        if (!result.token.id.empty()) {
            to.text() += "\nid       " + printable(result.token.id);
            to.text() += "\nsubject  " + printable(result.token.subject);
        }
    }
    to.end_line();
    to.finish();

    require(with.folder(), result.problem);
    if (result.says == verdict::address_denied && options.address.empty()) {
        complain("the token may be used from certain addresses only: --address says from which one");
    }
    return result.says == verdict::ok ? exit_status::yes : exit_status::no;
}

/// The figures of a store, under their names in JSON and in the list for people.
exit_status stats(const context &with)
{
    store::snapshot from;
    open(with, from);

    store::statistics file;
    require(with.folder(), from.stat(file));

    struct stat data;
    const std::string path = with.folder() + '/' + store::data_file;
    if (::stat(path.c_str(), &data) != 0) {
        require(with.folder(), store::from_errno(errno));
    }
    const auto size = static_cast<std::uint64_t>(data.st_size);
    const std::uint64_t used = file.used_pages * file.page_size;

    std::map<verdict, std::uint64_t> count;
    std::uint64_t early = 0;
    std::uint64_t blank = 0;
    std::uint64_t tombstones = file.entries;
    const std::uint64_t damaged = walk(
        with, from,
        [&](const digest &, const record &token) {
            count[status_of(token, with.now)]++;
            blank += has_blank_ends(token.subject) ? 1 : 0;
            tombstones--;
            return true;
        },
        [&](const digest &, const early_revocation &) { early++; });
    std::span<const std::byte> held_bytes;
    bool is_held = false;
    store::held_snapshot held;
    require(with.folder(), from.find(store::held_key(), held_bytes, is_held));
    tombstones -= damaged + early + (is_held ? 1 : 0);
    is_held = is_held && store::decode(held_bytes, held) == codec_error::none;

    const meta &info = from.info();
    const bool has_pepper = info.scheme == digest_scheme::hmac_sha256;
    output to;

    if (with.json) {
        std::string &text = to.text();
        const auto number = [&](const char *name, std::uint64_t value) {
            text += std::string{",\""} + name + "\":" + std::to_string(value);
        };
        const auto string = [&](const char *name, std::string_view value) {
            text += std::string{",\""} + name + "\":";
            write_string(value, text);
        };

        text += R"({"store":)";
        write_string(with.folder(), text);
        string("scheme", word_for(info.scheme));
        if (has_pepper) {
            string("key_id", to_hex(info.key));
        }
        string("state", name(info.state));
        for (const verdict one : {verdict::ok, verdict::expired, verdict::revoked, verdict::not_yet_valid}) {
            number(std::string{name(one)}.c_str(), count[one]);
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
            text += ",\"heartbeat_age\":" + std::to_string(with.now - info.heartbeat);
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
        to.end_line();
        to.finish();
        return exit_status::yes;
    }

    property_list list;
    list.add("store", printable(with.folder()));
    list.add("digests", has_pepper ? "HMAC-SHA-256, pepper " + to_hex(info.key) : "SHA-256");
    list.add("state", std::string{name(info.state)});
    for (const verdict one : {verdict::ok, verdict::expired, verdict::revoked, verdict::not_yet_valid}) {
        list.add(std::string{name(one)}, std::to_string(count[one]));
    }
    list.add("blank subjects", blank != 0 ? std::to_string(blank) + ", which are refused" : "");
    list.add("damaged", std::to_string(damaged));
    list.add("tombstones", std::to_string(tombstones));
    list.add("revoked early", std::to_string(early));
    list.add("by its own count", std::to_string(info.tokens) + " tokens, " + std::to_string(info.revoked) + " revoked");
    list.add("last sequence", std::to_string(info.last_sequence));
    list.add("epoch", printable(info.epoch));
    list.add("cursor", printable(info.cursor));
    list.add("heartbeat", info.heartbeat != 0 ? show_time(info.heartbeat, with.now) : "never: no source");
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
    list.write(to);
    to.finish();
    return exit_status::yes;
}

constexpr const char *show_examples = R"(Examples:
  patctl show pat_7Kq2ZC0mS3wB1xYt
  patctl show --token-stdin < token)";

constexpr const char *list_examples = R"(Examples:
  patctl list --subject user:42
  patctl list --status ok --limit 20
  patctl list --json | jq -r 'select(.expires_at < now + 86400) | .id')";

constexpr const char *check_examples = R"(Examples:
  patctl check < token
  patctl check --address 192.0.2.1 --scope read:api < token
The exit status is 0 for "ok" alone.)";

constexpr const char *stats_examples = R"(Examples:
  patctl stats
  patctl stats --json | jq .heartbeat_age)";

}  // namespace

void add_inspect(CLI::App &app, context &with)
{
    {
        const auto options = std::make_shared<selection_options>();
        CLI::App *command = app.add_subcommand("show", "Show one token");
        command->footer(show_examples);
        auto *which = command->add_option_group("Which", "exactly one of");
        which->add_option("ID", options->id, "the token with this id")->check(refuse_empty);
        which->add_option("--digest", options->digest_text, "the token with this digest")
            ->type_name("HEX")
            ->check(refuse_empty);
        which->add_flag("--token-stdin", options->token_on_stdin, "the token on standard input");
        which->require_option(1);
        command->callback([&with, options] { with.run = [&with, options] { return show(with, *options); }; });
    }
    {
        const auto options = std::make_shared<list_options>();
        CLI::App *command = app.add_subcommand("list", "List tokens");
        command->footer(list_examples);
        command->add_option("--subject", options->subject, "only those of this subject")
            ->type_name("S")
            ->check(refuse_empty);
        command->add_option("--status", options->status, "only those in this state")
            ->check(CLI::IsMember({"ok", "expired", "revoked", "not_yet_valid"}));
        command->add_option("--limit", options->limit, "at most so many")
            ->type_name("N")
            ->check(CLI::Range(std::uint64_t{1}, UINT64_MAX));
        command->callback([&with, options] { with.run = [&with, options] { return list(with, *options); }; });
    }
    {
        const auto options = std::make_shared<check_options>();
        CLI::App *command = app.add_subcommand("check", "Say what nginx would say to the token on standard input");
        command->footer(check_examples);
        command->add_option("--address", options->address, "the client's address")->type_name("A")->check(refuse_empty);
        command->add_option("--scope", options->scopes, "scope that is needed; may be repeated")
            ->type_name("SCOPE")
            ->allow_extra_args(false);
        command->add_option("--leeway", options->leeway, "auth_pat_leeway")->type_name("TIME")->capture_default_str();
        command->add_option("--prefix", options->prefix, "auth_pat_prefix")->type_name("P")->check(refuse_empty);
        command->callback([&with, options] { with.run = [&with, options] { return check(with, *options); }; });
    }
    {
        CLI::App *command = app.add_subcommand("stats", "Count tokens by state, and tell about the store");
        command->footer(stats_examples);
        command->callback([&with] { with.run = [&with] { return stats(with); }; });
    }
}

}  // namespace pat::cli
