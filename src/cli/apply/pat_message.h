#pragma once

#include "core/pat_digest.h"
#include "core/pat_record.h"

#include "cli/pat_draft.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace simdjson::dom {
class object;
}

/// The lines that "patctl apply" reads: docs/patctl.md, "apply".
namespace pat::cli {

enum class message_kind : unsigned char { put, revoke, remove, commit, heartbeat, snapshot_begin, snapshot_end };

struct apply_message {
    message_kind kind = message_kind::commit;
    token_digest digest{};                  ///< put, revoke, remove
    record_draft token;                     ///< put
    std::optional<std::uint64_t> sequence;  ///< put (which may lack it), revoke, remove, snapshot_begin
    std::int64_t time = 0;                  ///< revoke, heartbeat, snapshot_end; 0 if it was not given
    std::string cursor;                     ///< commit, snapshot_end
    std::optional<std::string> after;       ///< commit
    std::string epoch;                      ///< snapshot_begin
};

/// Throws bad_value for an invalid line.
[[nodiscard]] apply_message read_message(const simdjson::dom::object &object);

/// What is still known of an invalid line.
struct line_hint {
    std::vector<token_digest> digests;      ///< of the tokens it is about
    std::optional<std::uint64_t> sequence;  ///< if it is certain
    std::string id;                         ///< empty if unknown
    bool begins_snapshot = false;
};

[[nodiscard]] line_hint read_hint(const simdjson::dom::object &object);

/// The same for a line that is not JSON.
[[nodiscard]] line_hint read_hint(std::string_view text);

}  // namespace pat::cli
