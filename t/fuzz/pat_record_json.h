#pragma once

#include "cli/pat_draft.h"
#include "cli/pat_failure.h"
#include "cli/pat_json.h"
#include "core/pat_record.h"
#include "pat_fuzz.h"
#include "pat_json_line.h"

#include <string>

namespace pat::fuzz {

/// Encodes a draft that was read from a line, and writes it as JSON, which must give the same record again. Returns
/// whether a store takes it.
inline bool round_trip(const token_digest &digest, const cli::record_draft &draft)
{
    const token_key key = make_token_key(digest);
    record_buffer buffer;
    encoded result{};
    try {
        result = encode(key, draft.view(), buffer);
    } catch (const cli::bad_value &) {
        return false;
    }
    if (result.error != codec_error::none) {
        return false;
    }

    token_record record;
    expect(decode(key, result.bytes, record) == codec_error::none);

    cli::json_object json;
    const padded_text line{cli::add_fields(digest, record, json).line()};
    cli::record_draft again;
    expect(cli::read_record(json_parser().parse(line.text()), cli::record_form::digest, nullptr, again) == digest);

    record_buffer other;
    const encoded same = encode(key, again.view(), other);
    expect(same.error == codec_error::none && std::ranges::equal(same.bytes, result.bytes));
    return true;
}

}  // namespace pat::fuzz
