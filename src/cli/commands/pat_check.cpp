#include "core/pat_policy.h"
#include "core/pat_token.h"
#include "store/pat_reader.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_secret.h"
#include "cli/pat_text.h"
#include "cli/pat_time.h"

#include <memory>
#include <vector>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl check < token
  patctl check --address 192.0.2.1 --scope api:read < token
The exit status is 0 for "ok" alone.)";

struct check_options {
    std::string address;
    std::vector<std::string> scopes;
    std::string leeway = "0s";
    std::string prefix;
};

struct checked {
    access_verdict verdict;
    store::fault problem;
    token_record token;  ///< valid if its id is not empty
};

checked check_token(const command_context &context, const check_options &options, const facts &request,
                    std::string_view token, store::reader &reader, record_buffer &memory)
{
    if (!is_token(token) || (!options.prefix.empty() && !is_issued_form(token, options.prefix))) {
        return {access_verdict::malformed, {}, {}};
    }

    const pepper_hasher hash{context.pepper_file};
    const auto allocate = [](void *buffer, std::size_t) noexcept -> void * {
        return static_cast<record_buffer *>(buffer)->data();
    };

    checked result{access_verdict::unknown, {}, {}};
    result.problem = reader.open(context.enter().c_str(), context.map_size, store::command_wait_ms);
    if (!result.problem) {
        const store::lookup_result found =
            reader.lookup(hash.get(), make_token_key(hash.get()(token)), allocate, &memory, result.token);
        result.problem = found.problem;
        if (found.found) {
            result.verdict = decide(result.token, request, context.now);
        }
    }
    if (result.problem) {
        result.verdict = access_verdict::store_error;
        result.token = {};
    }
    return result;
}

exit_status check(const command_context &context, const check_options &options)
{
    if (!options.prefix.empty() && !is_prefix(options.prefix)) {
        throw bad_value{"--prefix: 1 to 32 letters, digits, \"_\", \"-\" and \".\""};
    }

    facts request;
    request.leeway = with_name("--leeway", [&] { return parse_duration(options.leeway); });
    if (!options.address.empty()) {
        const auto peer = parse_address(options.address);
        if (!peer) {
            throw bad_value{fmt::format("--address: {} is not an address", quote_value(options.address))};
        }
        request.peer = *peer;
    }
    std::vector<scope_requirement> required;
    for (const std::string &scopes : options.scopes) {
        with_name("--scope", [&] { require_scopes(scopes); });
        required.push_back({scopes});
    }
    request.required = required;
    static_cast<void>(context.folder());

    presented_token token;
    read_token(token);

    store::reader reader;
    record_buffer memory;
    const checked result = check_token(context, options, request, token.text(), reader, memory);

    output_stream output;
    if (context.json) {
        json_object json;
        json.text("status", name(result.verdict));
        if (!result.token.id.empty()) {
            add_properties(result.token, json);
        }
        output.add_line(json.line());
    } else {
        output.text() += name(result.verdict);
        if (!result.token.id.empty()) {
            output.text() +=
                fmt::format("\nid       {}\nsubject  {}", printable(result.token.id), printable(result.token.subject));
        }
        output.end_line();
    }
    output.finish();

    require(context.folder(), result.problem);
    if (result.verdict == access_verdict::address_denied && options.address.empty()) {
        error("the token is limited to certain addresses: name the client's with --address");
    }
    return result.verdict == access_verdict::ok ? exit_status::yes : exit_status::no;
}

}  // namespace

void add_check(command_line &line, command_context &context)
{
    const auto options = std::make_shared<check_options>();
    command_syntax command = line.add_command("check", "Tell how nginx would decide on the token on standard input",
                                              examples, [&context, options] { return check(context, *options); });
    command.add_option("--address", options->address, "the client's address").value_name("A").refuse_empty();
    command.add_option("--scope", options->scopes, "required scope; may be repeated").value_name("SCOPE");
    command.add_option("--leeway", options->leeway, "auth_pat_leeway").value_name("TIME").show_default();
    command.add_option("--prefix", options->prefix, "auth_pat_prefix").value_name("P").refuse_empty();
}

}  // namespace pat::cli
