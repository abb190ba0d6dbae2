#pragma once

#include "core/pat_address.h"
#include "core/pat_record.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

/// Last use of tokens: when, from where, and how often. Each worker counts uses in a batch, and merges it from time to
/// time into a table that all workers share:
///
///     request ─▶ use_batch (of a worker)  ─┐ merged
///     request ─▶ use_batch (of a worker)  ─┴────────▶ usage_table ──▶ report(), for permanent storage
///
/// Neither locks nor allocates. Both are bounded: a full batch loses uses, and a full table forgets the least recently
/// used token. Both losses are counted.
namespace pat {

/// Uses of one token, counted together.
struct token_use {
    std::string_view id;
    std::uint32_t store = 0;  ///< the token's store, as the caller numbers them
    std::uint64_t count = 0;
    std::int64_t used_at = 0;  ///< of the last one, in Unix seconds
    address peer;              ///< of the last one
};

/// The uses that a worker has seen since the last drain: a hash table with open addressing.
class use_batch {
public:
    static constexpr std::size_t slot_count = 1024;
    static constexpr std::size_t limit = slot_count / 4 * 3;  ///< beyond it, searches would become slow

    /// Counts one use. Returns false if there is no room for another token, so that the use is lost.
    bool add(std::uint32_t store, std::string_view id, std::int64_t used_at, const address &peer) noexcept;

    /// Whether it is so full that it should be drained soon.
    [[nodiscard]] bool is_filling() const noexcept { return used_count_ > limit / 2; }
    [[nodiscard]] bool is_empty() const noexcept { return used_count_ == 0; }

    /// Passes each token's uses to `take`, and empties the batch.
    template <typename Take>
    void drain(const Take &take) noexcept
    {
        for (std::size_t i = 0; i < used_count_; i++) {
            batch_slot &slot = slots_[used_[i]];
            take(token_use{{slot.id.data(), slot.id_length}, slot.store, slot.count, slot.used_at, slot.peer});
            slot.count = 0;
        }
        used_count_ = 0;
    }

private:
    struct batch_slot {
        std::uint32_t hash;
        std::uint32_t store;
        std::uint64_t count;  ///< 0: free
        std::int64_t used_at;
        address peer;
        std::uint8_t id_length;
        std::array<char, max_id_length> id;
    };

    std::array<batch_slot, slot_count> slots_{};
    std::array<std::uint16_t, limit> used_{};
    std::size_t used_count_ = 0;
};

/// The last use of as many tokens as fit into a block of memory. It holds no pointers, so the memory may lie at
/// different addresses in different processes. The caller serialises access.
///
///     header │ buckets (heads of chains) │ entries
///                    └─▶ entry ─▶ entry       each is also in the list of all, by last use,
///                                             and, if it has uses to report, in the list of those
class usage_table {
public:
    /// The first cursor of a table that is made at `time`, in Unix seconds: greater than the cursors of any table made
    /// before, as long as that gave out fewer than a million reports a second. Exact as a number in JSON (RFC 8259,
    /// section 6) until the year 2242.
    [[nodiscard]] static constexpr std::uint64_t cursor_at(std::int64_t time) noexcept
    {
        return static_cast<std::uint64_t>(time) << 20;
    }

    /// Reads a cursor as text. Returns nothing for what is none, or is from farther in the future than a wrong clock
    /// can make it: cursors only grow, so it would stay.
    [[nodiscard]] static std::optional<std::uint64_t> parse_cursor(std::string_view text, std::int64_t now) noexcept;

    /// Makes a table in `memory`, which must be aligned for any type. Returns nullptr if not even two tokens would fit.
    static usage_table *make(std::span<std::byte> memory, std::uint64_t first_cursor) noexcept;

    void add(const token_use &uses) noexcept;

    /// The most tokens in a report.
    static constexpr std::size_t report_size = 1000;

    /// Fills `out` with tokens of a store that have unreported uses, those that have waited longest first, and returns
    /// their number. `cursor` is that of the previous report, and confirms it; it becomes the cursor of this report, or
    /// stays the same if there is nothing to report. An older cursor confirms nothing and gets the same report again,
    /// without later uses. The texts point into the table.
    [[nodiscard]] std::size_t report(std::uint32_t store, std::uint64_t &cursor,
                                     std::span<token_use, report_size> out) noexcept;

    /// How many tokens most_used() looks at, so that a large table does not delay its caller.
    static constexpr std::uint32_t recent_size = 10'000;

    /// Fills `out` with those of the most recently used tokens that have the most uses, most used first. Returns their
    /// number.
    [[nodiscard]] std::size_t most_used(std::span<token_use> out) const noexcept;

    [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
    [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }
    [[nodiscard]] std::uint64_t cursor() const noexcept { return cursor_; }

    /// Tokens that were evicted to make room, and uses that were lost: unconfirmed uses of evicted tokens, and uses
    /// that were never counted.
    [[nodiscard]] std::uint64_t evicted() const noexcept { return evicted_; }
    [[nodiscard]] std::uint64_t lost_uses() const noexcept { return lost_uses_; }

    void count_lost(std::uint64_t uses) noexcept { lost_uses_ += uses; }

private:
    using entry_index = std::uint32_t;
    static constexpr entry_index none = ~entry_index{0};

    /// Lists of tokens with uses to report: usually one per store.
    static constexpr std::size_t pending_count = 16;

    struct links {
        entry_index before;
        entry_index after;
    };

    struct usage_entry {
        std::uint64_t total;      ///< uses
        std::uint64_t confirmed;  ///< of these, reported and confirmed
        std::uint64_t reported;   ///< of these, reported
        std::uint64_t report;     ///< the cursor of the unconfirmed report that has it; 0 if none
        std::int64_t used_at;
        address peer;
        std::uint8_t id_length;
        bool is_pending;  ///< in the list of those with unconfirmed uses
        std::uint32_t hash;
        std::uint32_t store;
        entry_index next;  ///< in the chain of its bucket
        links by_use;
        links pending;
        std::array<char, max_id_length> id;
    };

    struct entry_list {
        entry_index first;
        entry_index last;
    };

    using entry_links = links usage_entry::*;

    usage_table(std::uint32_t capacity, std::uint32_t buckets, std::uint64_t first_cursor) noexcept;

    [[nodiscard]] entry_index *buckets() noexcept { return reinterpret_cast<entry_index *>(this + 1); }
    [[nodiscard]] usage_entry *entries() noexcept { return const_cast<usage_entry *>(std::as_const(*this).entries()); }
    [[nodiscard]] const usage_entry *entries() const noexcept;

    [[nodiscard]] static token_use describe(const usage_entry &entry, std::uint64_t count) noexcept;
    [[nodiscard]] entry_index &bucket_of(std::uint32_t hash) noexcept { return buckets()[hash & (bucket_count_ - 1)]; }
    [[nodiscard]] entry_index find(std::uint32_t hash, const token_use &uses) noexcept;
    [[nodiscard]] entry_list &pending_of(std::uint32_t store) noexcept { return pending_[store % pending_count]; }
    [[nodiscard]] entry_index make_room() noexcept;
    [[nodiscard]] entry_index skip_others(std::uint32_t store, entry_index index) const noexcept;
    void confirm(std::uint32_t store, std::uint64_t report) noexcept;
    void append(entry_list &list, entry_links member, entry_index index) noexcept;
    void remove(entry_list &list, entry_links member, entry_index index) noexcept;

    std::uint32_t capacity_;
    std::uint32_t bucket_count_;  ///< a power of 2
    std::uint32_t size_ = 0;
    entry_list by_use_{none, none};  ///< least recently used first
    std::array<entry_list, pending_count> pending_;
    std::uint64_t cursor_;
    std::uint64_t evicted_ = 0;
    std::uint64_t lost_uses_ = 0;
};

}  // namespace pat
