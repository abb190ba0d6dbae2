/// Lines of "patctl import". Input: a byte that says which form the line has, and the line.

#include "cli/pat_failure.h"
#include "cli/pat_json.h"
#include "core/pat_record.h"
#include "core/pat_token.h"
#include "pat_fuzz.h"
#include "pat_json_line.h"
#include "pat_record_json.h"

using namespace pat;

namespace {

void try_record(const simdjson::dom::object &object, cli::record_form form)
{
    static const token_hasher hasher;
    cli::record_draft draft;
    const token_digest digest = cli::read_record(object, form, &hasher, draft);
    if (form == cli::record_form::plaintext) {
        std::string_view token;
        expect(object.at_key("token").get(token) == simdjson::SUCCESS && is_token(token) && digest == hasher(token));
    }
    (void) fuzz::round_trip(digest, draft);
}

/// What is taken over is written again in the same way.
void try_local_revocation(const simdjson::dom::object &object)
{
    early_revocation held;
    std::string key_id;
    const token_digest digest = cli::read_local_revocation(object, held, key_id);
    expect(held.local_revoked_at > 0 || held.denied);

    cli::json_object json;
    const fuzz::padded_text line{cli::add_early_fields(digest, held, json).line()};
    early_revocation again;
    expect(cli::read_local_revocation(fuzz::json_parser().parse(line.text()), again, key_id) == digest);
    expect(again.local_revoked_at == held.local_revoked_at && again.denied == held.denied);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};
    const std::uint8_t form = in.byte();
    const fuzz::padded_text line{in.rest()};
    try {
        const simdjson::dom::object &object = fuzz::json_parser().parse(line.text());
        switch (form % 3) {
        case 0: try_record(object, cli::record_form::digest); break;
        case 1: try_record(object, cli::record_form::plaintext); break;
        default: try_local_revocation(object); break;
        }
    } catch (const cli::bad_value &) {
    }
    return 0;
}
