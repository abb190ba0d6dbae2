#pragma once

#include "core/pat_record.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

/// The record under the key 'h': a snapshot that an operator must accept, and whether one did. patctl only.
///
///      0  u32  checksum           as of all records: pat_record.h
///      4  u8   version            1
///      5  u8   flags              bit 0: accepted; bit 1: the store has no source yet
///      6  u16  epoch length       0..64
///      8  i64  held_at            or when it was accepted
///     16  u64  received           how many tokens the snapshot has
///     24  u64  removed            how many it would remove
///     32  u64  tokens             of how many
///     40       epoch
namespace pat::store {

/// A snapshot that removes so much that an operator must accept it.
struct held_snapshot {
    std::int64_t held_at = 0;
    std::uint64_t received = 0;
    std::uint64_t removed = 0;
    std::uint64_t tokens = 0;
    bool is_accepted = false;
    bool is_first = false;   ///< the tokens of the store came from no source
    std::string_view epoch;  ///< of the snapshot; empty if none has come. Points into the decoded bytes
};

using held_buffer = std::array<std::byte, 40 + max_epoch_length>;

[[nodiscard]] std::span<const std::byte> held_key() noexcept;

[[nodiscard]] codec_error decode(std::span<const std::byte> value, held_snapshot &out) noexcept;

/// An epoch that is too long, or an impossible time, is an error.
[[nodiscard]] encoded encode(const held_snapshot &held, held_buffer &buffer) noexcept;

/// Whether a source keeps the store: it has sent a snapshot, or a commit.
[[nodiscard]] inline bool is_followed(const meta_record &info) noexcept
{
    return !info.epoch.empty() || !info.cursor.empty();
}

}  // namespace pat::store
