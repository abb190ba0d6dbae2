#pragma once

#include "core/pat_digest.h"
#include "core/pat_record.h"
#include "writer/pat_writer.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/// Changes that a source sends, on their way into a store: docs/store-format.md, "Changes".
namespace pat::cli {

enum class change_kind : std::uint8_t {
    put,
    revoke,
    remove,
    deny,  ///< an invalid line, which may have been a revocation
};

struct token_change {
    change_kind kind;
    bool revokes;  ///< takes access away, or puts a token that is revoked
    token_digest digest;
    std::uint64_t sequence;  ///< 0 for a denial whose sequence is not certain
    std::int64_t time;       ///< of a revocation: when the source revoked it
    std::size_t record_at;   ///< of a put: where its record is in batch::records
    std::size_t record_bytes;
};

/// Changes in the order in which they came.
struct batch {
    std::vector<token_change> changes;
    std::vector<std::byte> records;

    void add(const token_change &change) { changes.push_back(change); }
    void add(token_change change, std::span<const std::byte> record);

    /// Removes the first `count` changes.
    void drop(std::size_t count);

    [[nodiscard]] std::span<const std::byte> record_of(const token_change &change) const noexcept
    {
        return std::span{records}.subspan(change.record_at, change.record_bytes);
    }
};

/// The result of a change.
enum class change_result : std::uint8_t {
    applied,
    older,     ///< its sequence is not higher than that of what the store knows of the token
    repaired,  ///< applied to a token whose record was damaged
};

/// Applies one change. Undoes no revocation of this host, and ignores a change that is older than the record.
store::fault apply(store::transaction &transaction, const token_change &change, std::span<const std::byte> record,
                   std::int64_t now, change_result &result);

}  // namespace pat::cli
