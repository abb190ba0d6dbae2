#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_description.h"
#include "cli/pat_draft.h"
#include "cli/pat_output.h"
#include "cli/pat_table.h"
#include "cli/pat_text.h"
#include "cli/pat_time.h"
#include "cli/pat_walk.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl list --subject user:42
  patctl list --status ok --limit 20
  patctl list --expiring-within 7d --sort expires
  patctl list --scope csv:write --name shop
  patctl list --json | jq -r 'select(.expires_at < now + 86400) | .id')";

struct list_options {
    std::string subject;
    std::string status;
    std::string name;
    std::vector<std::string> scopes;
    std::string expiring_within;
    std::string sort;
    bool reverse = false;
    std::string limit;
};

class token_filter {
public:
    token_filter(const list_options &options, std::int64_t now) : options_{options}
    {
        for (const std::string &scopes : options.scopes) {
            with_name("--scope", [&] {
                for_each_scope_in(scopes, [&](std::string_view scope) { scopes_.append(scope).append(" "); });
            });
        }
        if (!options.expiring_within.empty()) {
            last_end_ = now + with_name("--expiring-within", [&] { return parse_duration(options.expiring_within); });
        }
    }

    [[nodiscard]] bool matches(const token_record &token, access_verdict status) const
    {
        if (last_end_) {
            const bool is_valid = status == access_verdict::ok || status == access_verdict::not_yet_valid;
            if (!is_valid || token.expires_at == 0 || token.expires_at > *last_end_) {
                return false;
            }
        }
        return (options_.subject.empty() || token.subject == options_.subject)
               && (options_.status.empty() || options_.status == name(status))
               && token.name.find(options_.name) != std::string_view::npos
               && satisfies(token.scopes, {.scopes = scopes_});
    }

private:
    const list_options &options_;
    std::string scopes_;
    std::optional<std::int64_t> last_end_;
};

/// What a token is sorted by: one of both.
struct sort_key {
    std::int64_t time = 0;
    std::string text;
    token_digest digest{};
};

bool operator<(const sort_key &first, const sort_key &second)
{
    return std::tie(first.time, first.text) < std::tie(second.time, second.text);
}

constexpr std::array sort_names = {"id", "status", "subject", "name", "expires", "issued"};

sort_key key_of(const std::string &sort, const token_digest &digest, const token_record &token, access_verdict status)
{
    if (sort == "expires") {
        return {token.expires_at != 0 ? token.expires_at : INT64_MAX, {}, digest};
    }
    if (sort == "issued") {
        return {token.issued_at, {}, digest};
    }
    const std::string_view text = sort == "id"        ? token.id
                                  : sort == "subject" ? token.subject
                                  : sort == "name"    ? token.name
                                                      : name(status);
    return {0, std::string{text}, digest};
}

const char *colour_of(access_verdict status)
{
    switch (status) {
    case access_verdict::ok: return "32";
    case access_verdict::expired: return "33";
    case access_verdict::not_yet_valid: return "36";
    default: return "31";
    }
}

/// Writes tokens: as JSON, or as a table.
class token_list {
public:
    explicit token_list(const command_context &context) : context_{context}
    {
        if (!context.json) {
            const terminal terminal = find_terminal();
            has_short_times_ = terminal.columns != 0 && terminal.columns < roomy_columns;
            rows_.emplace(output_, terminal,
                          std::vector<table_column>{{.head = "ID", .cut = column_cut::last},
                                                    {.head = "STATUS"},
                                                    {.head = "SUBJECT", .cut = column_cut::first},
                                                    {.head = "EXPIRES"},
                                                    {.head = "SCOPES", .cut = column_cut::first},
                                                    {.head = "NAME", .cut = column_cut::first}});
        }
    }

    void add(const token_digest &digest, const token_record &token)
    {
        if (!rows_) {
            write_json(context_, digest, token, output_);
            return;
        }

        const access_verdict status = status_of(token, context_.now);
        const std::string subject = printable(token.subject);
        rows_->add({{printable(token.id)},
                    {std::string{name(status)}, colour_of(status)},
                    {has_blank_ends(subject) ? fmt::format("\"{}\" (blank ends)", subject) : subject},
                    {token.expires_at != 0 ? show_end(token.expires_at) : "never"},
                    {printable(token.scopes)},
                    {printable(token.name)}});
    }

    void finish()
    {
        if (rows_) {
            rows_->finish();
        }
        output_.finish();
    }

private:
    static constexpr std::size_t roomy_columns = 100;
    static constexpr std::size_t date_length = 10;

    [[nodiscard]] std::string show_end(std::int64_t time) const
    {
        std::string text = format_time(time);
        if (has_short_times_) {
            text.resize(date_length);
        }
        return text;
    }

    const command_context &context_;
    output_stream output_;
    std::optional<table> rows_;
    bool has_short_times_ = false;
};

exit_status list(const command_context &context, const list_options &options)
{
    const token_filter filter{options, context.now};
    const std::uint64_t limit = options.limit.empty()
                                    ? UINT64_MAX
                                    : with_name("--limit", [&] { return parse_count(options.limit, UINT64_MAX); });
    store::snapshot snapshot;
    open(context, snapshot);

    token_list tokens{context};
    std::vector<sort_key> found;
    std::uint64_t listed = 0;
    walk(context, snapshot, [&](const token_digest &digest, const token_record &token) {
        const access_verdict status = status_of(token, context.now);
        if (!filter.matches(token, status)) {
            return true;
        }
        if (!options.sort.empty()) {
            found.push_back(key_of(options.sort, digest, token, status));
            return true;
        }
        tokens.add(digest, token);
        return ++listed != limit;
    });

    std::ranges::stable_sort(found, [&](const sort_key &first, const sort_key &second) {
        return options.reverse ? second < first : first < second;
    });
    found.resize(std::min<std::uint64_t>(found.size(), limit));
    for (const sort_key &each : found) {
        const token_key key = make_token_key(each.digest);
        std::span<const std::byte> value;
        bool is_there = false;
        token_record token;
        require(context.folder(), snapshot.find(key, value, is_there));
        if (const codec_error error = decode(key, value, token); error != codec_error::none) {
            require(context.folder(), store::from_codec(error));
        }
        tokens.add(each.digest, token);
    }

    tokens.finish();
    return exit_status::yes;
}

}  // namespace

void add_list(command_line &line, command_context &context)
{
    const auto options = std::make_shared<list_options>();
    command_syntax command =
        line.add_command("list", "List tokens", examples, [&context, options] { return list(context, *options); });
    command.add_option("--subject", options->subject, "only those of this subject").value_name("S").refuse_empty();
    command.add_option("--status", options->status, "only those with this status")
        .value_name("STATUS")
        .one_of({"ok", "expired", "revoked", "not_yet_valid"});
    command.add_option("--name", options->name, "only those whose name contains this")
        .value_name("TEXT")
        .refuse_empty();
    command.add_option("--scope", options->scopes, "only those with this scope; may be repeated")
        .value_name("SCOPE")
        .refuse_empty();
    command
        .add_option("--expiring-within", options->expiring_within, "only those that are valid, and expire within this")
        .value_name("TIME")
        .refuse_empty();
    command_option sort =
        command.add_option("--sort", options->sort, "the order, which is that of the digests without this")
            .value_name("KEY")
            .one_of(std::vector<std::string>{sort_names.begin(), sort_names.end()});
    command.add_flag("--reverse", options->reverse, "the reverse order").needs(sort);
    command.add_option("--limit", options->limit, "at most N tokens").value_name("N").refuse_empty();
}

}  // namespace pat::cli
