#include "writer/pat_writer.h"

#include "cli/pat_collection.h"
#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_draft.h"
#include "cli/pat_json.h"
#include "cli/pat_lines.h"
#include "cli/pat_output.h"
#include "cli/pat_secret.h"
#include "cli/pat_walk.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl import tokens.jsonl
  psql -XAtc 'SELECT …' | patctl import --strict -
  patctl import --dry-run tokens.jsonl
  patctl export --store /var/lib/pat/a | patctl import --store /var/lib/pat/b -
  patctl import --local-revocations revocations.jsonl
A line: {"digest":"9f86d0…","id":"42","subject":"user:42","scopes":["api:read"],"expires_at":1798761600})";

struct import_options {
    std::string file;
    bool plaintext = false;
    bool strict = false;
    bool lenient = false;
    bool dry_run = false;
    bool local_revocations = false;
};

struct input {
    int fd = STDIN_FILENO;
    std::string name = "standard input";
    std::uint64_t size = 0;  ///< 0: not known

    explicit input(const std::string &file)
    {
        if (file != "-") {
            name = '"' + file + '"';
            fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
            if (fd < 0) {
                throw failure{exit_status::fault, fmt::format("{}: {}", name, error_text(errno))};
            }
        }
        struct stat info;
        if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
            size = static_cast<std::uint64_t>(info.st_size);
        }
    }
    input(const input &) = delete;
    input &operator=(const input &) = delete;
    ~input()
    {
        if (fd != STDIN_FILENO) {
            close(fd);
        }
    }
};

/// Calls `take(number, object)` for each line, which throws bad_value to refuse it; returns how many were refused.
template <typename Take>
std::uint64_t read_lines(const input &input, const Take &take)
{
    line_reader lines{input.fd, input.name};
    json_parser parser;
    progress bar{"reading", input.size};
    std::uint64_t refused = 0;

    for (input_line line; lines.next(line); bar.reach(input.size > 0 ? lines.position() : line.number)) {
        if (!line.too_long && line.text.find_first_not_of(" \t") == std::string_view::npos) {
            continue;
        }

        try {
            if (line.too_long) {
                throw bad_value{fmt::format("longer than {} bytes", max_line_length)};
            }
            take(line.number, parser.parse(line.text));
        } catch (const bad_value &bad) {
            error(fmt::format("line {}: {}", line.number, bad.what()));
            refused++;
        }
    }
    return refused;
}

std::string refusal_of(std::uint64_t lines)
{
    return fmt::format("{} {} refused", lines, lines == 1 ? "line was" : "lines were");
}

/// Whether lines were refused where none may be.
bool is_too_strict_for(const import_options &options, std::uint64_t refused)
{
    if (!options.strict || refused == 0) {
        return false;
    }
    error(fmt::format("nothing was imported: {}", refusal_of(refused)));
    return true;
}

exit_status status_for(const import_options &options, std::uint64_t refused)
{
    return refused == 0 || options.lenient ? exit_status::yes : exit_status::no;
}

struct import_result {
    std::uint64_t added = 0;
    std::uint64_t replaced = 0;
    bool is_followed = false;            ///< the store has a source
    std::uint64_t still_revoked = 0;     ///< those of the replaced whose local revocation was kept
    std::vector<token_digest> repaired;  ///< those of the replaced that were damaged
};

/// Writes one record. An import is the operator's own act and replaces a record whatever its sequence, but only
/// restore-access undoes a local revocation.
store::fault upsert(store::transaction &transaction, const token_digest &digest, token_record record,
                    import_result &result)
{
    token_record old;
    bool found = false;

    const store::fault problem = transaction.get(digest, old, found);
    if (problem.kind == store::fault_kind::bad_record) {
        result.repaired.push_back(digest);
    } else if (problem) {
        return problem;
    } else if (found && old.local_revoked_at != 0 && record.local_revoked_at == 0) {
        record.local_revoked_at = old.local_revoked_at;
        result.still_revoked++;
    }

    (found ? result.replaced : result.added)++;
    return transaction.put(digest, record);
}

import_result write_records(const command_context &context, store::writer &writer, const collection &records)
{
    progress bar{"writing", records.size()};
    import_result result;

    require(context.folder(), writer.update([&](store::transaction &transaction) -> store::fault {
        meta_record &info = transaction.info();
        const bool is_bulk_load = info.tokens == 0 && !info.has_source();
        result.is_followed = store::is_followed(info);

        for (std::size_t i = 0; i < records.size(); i++) {
            const collection::item item = records[i];
            token_record token;
            if (const codec_error error = decode(make_token_key(item.digest), item.record, token);
                error != codec_error::none) {
                return store::from_codec(error);
            }

            if (const store::fault problem = is_bulk_load ? transaction.append(item.digest, token)
                                                          : upsert(transaction, item.digest, token, result)) {
                return problem;
            }
            if (info.epoch.empty()) {
                info.last_sequence = std::max(info.last_sequence, token.sequence);
            }
            bar.reach(i + 1);
        }

        if (is_bulk_load) {
            result.added = records.size();
        }
        if (info.state == store_state::empty) {
            info.state = store_state::ready;
        }
        return {};
    }));
    return result;
}

/// Reads and encodes a line, whose digest is returned; throws bad_value.
token_digest encode_record(const simdjson::dom::object &object, record_form form, const token_hasher &hash,
                           record_buffer &buffer, encoded &result)
{
    record_draft drafted;
    const token_digest key = read_record(object, form, &hash, drafted);

    result = encode(make_token_key(key), drafted.view(), buffer);
    if (result.error != codec_error::none) {
        throw bad_value{std::string{message(result.error)}};
    }
    return key;
}

exit_status check_records(const command_context &context, const import_options &options)
{
    const input input{options.file};
    const pepper_hasher hash{options.plaintext ? context.pepper_file : std::string{}};
    const record_form form = options.plaintext ? record_form::plaintext : record_form::digest;

    const std::uint64_t refused = read_lines(input, [&](std::uint64_t, const simdjson::dom::object &object) {
        record_buffer buffer;
        encoded result;
        encode_record(object, form, hash.get(), buffer, result);
    });
    if (refused > 0) {
        error(refusal_of(refused));
    }
    return status_for(options, refused);
}

exit_status import_records(const command_context &context, const import_options &options)
{
    const input input{options.file};
    const pepper_hasher hash{options.plaintext ? context.pepper_file : std::string{}};

    const std::string &folder = context.enter();
    store::writer writer;
    context.open(writer);
    if (options.plaintext) {
        require(folder, writer.update([&](store::transaction &transaction) -> store::fault {
            return transaction.info().made_with(hash.get()) ? store::fault{}
                                                            : store::fault{store::fault_kind::wrong_pepper};
        }));
    }

    const record_form form = options.plaintext ? record_form::plaintext : record_form::digest;
    collection records;
    const std::uint64_t refused = read_lines(input, [&](std::uint64_t number, const simdjson::dom::object &object) {
        record_buffer buffer;
        encoded result;
        const token_digest digest = encode_record(object, form, hash.get(), buffer, result);
        records.add(digest, number, result.bytes);
    });
    if (is_too_strict_for(options, refused)) {
        return exit_status::no;
    }

    std::uint64_t duplicates = 0;
    records.sort();
    records.keep_last([&](std::uint64_t number, std::uint64_t later) {
        warning(fmt::format("line {}: line {} has the same digest and replaces it", number, later));
        duplicates++;
    });

    const import_result result = write_records(context, writer, records);

    for (const token_digest &digest : result.repaired) {
        warn_of_repair(digest);
    }

    if (result.is_followed && records.size() > 0) {
        warning("the store has a source, whose next snapshot removes the tokens that the source does not have");
    }
    if (context.json) {
        write_out(json_object{}
                      .number("imported", records.size())
                      .number("new", result.added)
                      .number("replaced", result.replaced)
                      .number("duplicates", duplicates)
                      .number("refused", refused)
                      .line());
    }
    notice(
        fmt::format("imported {} records, {} of them new{}; {}", records.size(), result.added,
                    result.still_revoked > 0 ? fmt::format("; {} stay revoked on this host", result.still_revoked) : "",
                    refusal_of(refused)));
    return status_for(options, refused);
}

/// Takes over a local revocation of another store; `is_early` tells that this store has no record of the token.
store::fault carry_over(store::transaction &transaction, const token_digest &digest, const early_revocation &held,
                        bool &is_early)
{
    token_record token;
    bool found = false;
    const store::fault problem = transaction.get(digest, token, found);
    if (problem && problem.kind != store::fault_kind::bad_record) {
        return problem;
    }

    is_early = problem || !found;
    if (!is_early) {
        token.local_revoked_at = token.local_revoked_at != 0 ? token.local_revoked_at : held.local_revoked_at;
        token.denied = token.denied || held.denied;
        return transaction.put(digest, token);
    }

    early_revocation known;
    const store::fault damage = transaction.get(digest, known, found);
    if (damage && damage.kind != store::fault_kind::bad_record) {
        return damage;
    }
    if (!damage && found) {
        known.local_revoked_at = known.local_revoked_at != 0 ? known.local_revoked_at : held.local_revoked_at;
        known.denied = known.denied || held.denied;
        return transaction.revoke_early(digest, known);
    }
    return transaction.revoke_early(digest, held);
}

exit_status import_local_revocations(const command_context &context, const import_options &options)
{
    const input input{options.file};

    const std::string &folder = context.enter();
    store::writer writer;
    context.open(writer);

    std::string own_key_id;
    require(folder, writer.update([&](store::transaction &transaction) -> store::fault {
        own_key_id = key_id_of(transaction.info());
        return {};
    }));

    std::vector<std::pair<token_digest, early_revocation>> revocations;
    const std::uint64_t refused = read_lines(input, [&](std::uint64_t, const simdjson::dom::object &object) {
        early_revocation held;
        std::string key_id;
        const token_digest digest = read_local_revocation(object, held, key_id);
        if (key_id != own_key_id) {
            require(folder, {store::fault_kind::wrong_pepper});
        }
        record_buffer buffer;
        if (const encoded result = encode(make_early_key(digest), held, buffer); result.error != codec_error::none) {
            throw bad_value{std::string{message(result.error)}};
        }
        revocations.emplace_back(digest, held);
    });
    if (is_too_strict_for(options, refused)) {
        return exit_status::no;
    }

    std::uint64_t early = 0;
    require(folder, writer.update([&](store::transaction &transaction) -> store::fault {
        for (const auto &[digest, held] : revocations) {
            bool is_early = false;
            if (const store::fault problem = carry_over(transaction, digest, held, is_early)) {
                return problem;
            }
            early += is_early ? 1 : 0;
        }
        return {};
    }));

    if (context.json) {
        write_out(json_object{}
                      .number("imported", revocations.size())
                      .number("early", early)
                      .number("refused", refused)
                      .line());
    }
    notice(fmt::format("imported {} local revocations, {} of them for tokens that are not here yet; {}",
                       revocations.size(), early, refusal_of(refused)));
    return status_for(options, refused);
}

}  // namespace

void add_import(command_line &line, command_context &context)
{
    const auto options = std::make_shared<import_options>();
    command_syntax command =
        line.add_command("import", "Add or replace tokens, from JSON Lines", examples, [&context, options] {
            if (options->dry_run) {
                return check_records(context, *options);
            }
            return options->local_revocations ? import_local_revocations(context, *options)
                                              : import_records(context, *options);
        });
    command.add_argument("FILE", options->file, "the file; - for standard input").required();
    command_option plaintext =
        command.add_flag("--plaintext", options->plaintext, "lines hold tokens, instead of their digests");
    command_option strict = command.add_flag("--strict", options->strict, "import nothing if a line is bad");
    command_option lenient = command.add_flag("--lenient", options->lenient, "exit with 0 although lines were bad");
    command_option dry_run =
        command.add_flag("--dry-run", options->dry_run, "check the lines, without a store, and import nothing");
    lenient.excludes(strict).excludes(dry_run);
    command
        .add_flag("--local-revocations", options->local_revocations,
                  "lines are those of \"export --local-revocations\"")
        .excludes(plaintext)
        .excludes(dry_run);
}

}  // namespace pat::cli
