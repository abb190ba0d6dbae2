#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_draft.h"
#include "cli/pat_issuing.h"
#include "cli/pat_secret.h"
#include "cli/pat_text.h"
#include "cli/pat_time.h"

#include <memory>
#include <vector>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl issue --subject user:42
  patctl issue --subject user:42 --name "CI of shop" --scope api:read --scope csv:write --expires-in 30d
  patctl issue --subject partner:7 --cidr 192.0.2.0/24 --claim plan=pro --expires-at 2027-01-01T00:00:00Z
  patctl issue --subject user:42 --json | jq -r .token)";

struct issue_options {
    std::string subject;
    std::string name;
    std::vector<std::string> scopes;
    std::string expires_in = "90d";
    std::string expires_at;
    bool no_expiry = false;
    std::string not_before;
    std::vector<std::string> cidrs;
    std::vector<std::string> claims;
    std::string prefix{default_prefix};
};

void add_claim(std::string_view text, record_draft &draft)
{
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) {
        throw bad_value{"a claim is written name=value"};
    }
    draft.add_claim({text.substr(0, equals), text.substr(equals + 1)});
}

std::int64_t read_expiry(const issue_options &options, std::int64_t now)
{
    if (options.no_expiry) {
        return 0;
    }
    if (options.expires_at.empty()) {
        return now + read_lifetime(options.expires_in);
    }

    const std::int64_t time = with_name("--expires-at", [&] { return parse_time(options.expires_at); });
    if (time <= now) {
        throw bad_value{fmt::format("--expires-at: {} has passed", format_time(time))};
    }
    return time;
}

record_draft read_options(const issue_options &options, std::int64_t now)
{
    record_draft result;
    for (const auto &[option, text] : {std::pair{"--subject", &options.subject}, {"--name", &options.name}}) {
        with_name(option, [text = text] { require_utf8(*text); });
    }
    result.subject = options.subject;
    result.name = trim_blanks(options.name);
    result.issued_at = now;
    result.expires_at = read_expiry(options, now);

    for (const std::string &scopes : options.scopes) {
        with_name("--scope",
                  [&] { for_each_scope_in(scopes, [&](std::string_view scope) { result.add_scope(scope); }); });
    }
    for (const std::string &cidr : options.cidrs) {
        with_name("--cidr", [&] {
            require_no_other_list(cidr, "repeat --cidr for each range");
            result.add_cidr(cidr);
        });
    }
    for (const std::string &claim : options.claims) {
        with_name("--claim", [&] {
            require_utf8(claim);
            add_claim(claim, result);
        });
    }
    if (!options.not_before.empty()) {
        result.not_before = with_name("--not-before", [&] { return parse_time(options.not_before); });
        if (result.expires_at != 0 && result.not_before >= result.expires_at) {
            throw bad_value{
                fmt::format("--not-before: the token would expire first, at {}", format_time(result.expires_at))};
        }
    }
    return result;
}

exit_status issue(const command_context &context, const issue_options &options)
{
    prepare_to_issue(context, options.prefix);

    record_draft drafted = read_options(options, context.now);
    drafted.id = generate_id();
    const token_record issued = drafted.view();

    const pepper_hasher hash{context.pepper_file};
    store::writer writer;
    context.open(writer);

    const fresh_token token{options.prefix};
    const token_digest digest = hash.get()(token.text());

    bool is_followed = false;
    require(context.folder(), writer.update([&](store::transaction &transaction) -> store::fault {
        is_followed = store::is_followed(transaction.info());
        if (!transaction.info().made_with(hash.get())) {
            return {store::fault_kind::wrong_pepper};
        }
        if (transaction.info().state == store_state::empty) {
            transaction.info().state = store_state::ready;
        }
        return transaction.put(digest, issued);
    }));
    print_token(token.text(), issued, context.json);

    notice(fmt::format("issued {} for {}, {}", drafted.id, drafted.subject, describe_end(drafted.expires_at)));
    if (is_followed) {
        warning("the store has a source that does not have this token: its next snapshot removes it");
    }
    return exit_status::yes;
}

}  // namespace

void add_issue(command_line &line, command_context &context)
{
    const auto options = std::make_shared<issue_options>();

    command_syntax command = line.add_command("issue", "Issue a token, and print it once", examples,
                                              [&context, options] { return issue(context, *options); });

    command.add_option("--subject", options->subject, "user or account that the token acts for")
        .value_name("S")
        .required();
    command.add_option("--name", options->name, "what the token is for").value_name("N");
    command.add_option("--scope", options->scopes, "scope to grant; may be repeated").value_name("SCOPE");
    command_option expires_in =
        command.add_option("--expires-in", options->expires_in, "lifetime: a number with s, m, h, d, w, M or y")
            .value_name("TIME")
            .show_default();
    command_option expires_at =
        command.add_option("--expires-at", options->expires_at, "time: Unix seconds or RFC 3339")
            .value_name("T")
            .refuse_empty();
    command_option never = command.add_flag("--no-expiry", options->no_expiry, "valid until it is revoked");
    expires_in.excludes(expires_at).excludes(never);
    expires_at.excludes(never);
    command.add_option("--not-before", options->not_before, "time from which it is valid")
        .value_name("T")
        .refuse_empty();
    command.add_option("--cidr", options->cidrs, "addresses it may be used from; may be repeated").value_name("CIDR");
    command.add_option("--claim", options->claims, "value for the upstream; may be repeated").value_name("NAME=VALUE");
    command.add_option("--prefix", options->prefix, "prefix of the token").value_name("P").show_default();
}

}  // namespace pat::cli
