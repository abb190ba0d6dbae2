#pragma once

#include "core/pat_digest.h"
#include "writer/pat_writer.h"

#include "cli/pat_collection.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

/// Making a store equal to a snapshot of its source: docs/store-format.md, "Snapshots".
namespace pat::cli {

/// The tokens of a snapshot while it arrives, in any order and in bounded memory. They lie in 256 buckets by the first
/// byte of their digests, which is as good as random; the excess of a bucket goes to an unnamed file:
///
///     bucket 00:  [piece in the file] [piece in the file] … [in memory]
///     bucket 01:  …
///
/// Read bucket by bucket, and each bucket sorted, they are in the order of the store's keys.
class spool {
public:
    static constexpr std::size_t buckets = 256;

    /// `folder` is for the file, which is made when it is needed.
    explicit spool(std::string folder) : folder_{std::move(folder)} {}
    spool(const spool &) = delete;
    spool &operator=(const spool &) = delete;
    ~spool();

    /// As for a collection. Throws a failure if the file can't be written.
    void add(const token_digest &digest, std::uint64_t order, std::span<const std::byte> record);

    /// Appends the contents of a bucket.
    void read(std::size_t bucket, collection &out) const;

private:
    struct spool_piece {
        off_t offset;
        std::size_t size;
    };

    struct spool_bucket {
        std::vector<spool_piece> in_file;
        std::vector<std::byte> in_memory;
    };

    void write_out(spool_bucket &bucket);

    std::string folder_;
    int fd_ = -1;
    off_t size_ = 0;
    std::array<spool_bucket, buckets> buckets_;
};

/// One full resync, from the first token to the last of its transactions.
class resync {
public:
    struct counts {
        std::uint64_t received = 0;
        std::uint64_t written = 0;
        std::uint64_t removed = 0;
    };

    /// A snapshot as of `sequence`, whose tokens are spooled in `folder`.
    resync(const std::string &folder, std::uint64_t sequence) : sequence_{sequence}, spool_{folder} {}

    [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_; }

    /// A token of the snapshot. Of several with the same digest, the one with the highest sequence counts.
    void add(const token_digest &digest, std::uint64_t sequence, std::span<const std::byte> record);

    /// A token whose row in the snapshot is invalid: the store's record of it is denied. A valid row with the same
    /// sequence, if that is certain, or with a higher one counts instead.
    void deny(const token_digest &digest, std::optional<std::uint64_t> sequence);

    /// What a snapshot would do to the tokens of the store.
    struct removal {
        std::uint64_t removed = 0;       ///< the snapshot lacks them
        std::uint64_t live_removed = 0;  ///< those of them that are let in
        std::uint64_t live_kept = 0;
        std::uint64_t tokens = 0;  ///< of the store
    };

    /// The passes through the store:
    ///
    ///     weigh ──nearly all stays──▶ full ──▶ done
    ///       │                          ▲
    ///       └──▶ is_mass_removal() ──▶ revocations ──▶ held ──accept()
    enum class pass : unsigned char { weigh, revocations, held, full };

    [[nodiscard]] pass current() const noexcept { return pass_; }

    /// True once the snapshot is found to remove so much that an operator must accept it: anything at all if it has no
    /// tokens, otherwise at least a hundred tokens that are let in and more than nine tenths of them. Until accept(),
    /// only its revocations are written.
    [[nodiscard]] bool is_mass_removal() const noexcept { return pass_ == pass::revocations; }

    [[nodiscard]] const removal &planned_removal() const noexcept { return removal_; }

    /// Writes all of it, as an operator has accepted it.
    void accept() { begin(pass::full); }

    /// Reads the rows that the next step needs. The snapshot must be complete.
    void prepare();

    /// Makes the next part of the store equal to the snapshot, in a transaction of bounded size. Without a move_on() in
    /// between, the next call repeats the step in its transaction.
    store::fault step(store::transaction &transaction);

    /// The transaction of the last step() is durable.
    void move_on() noexcept;

    [[nodiscard]] bool is_done() const noexcept { return pass_ == pass::full && stage_ == stage::end; }

    [[nodiscard]] const counts &done() const noexcept { return counts_; }

    /// Tokens of the snapshot that the store agrees with so far.
    [[nodiscard]] std::uint64_t merged() const noexcept { return merged_; }

    /// The damaged records that the last step replaced or removed.
    [[nodiscard]] const std::vector<token_digest> &repaired() const noexcept { return repaired_; }

private:
    enum class stage : unsigned char { tokens, tombstones, end };

    struct merge_action;

    void begin(pass next);
    void end_pass();
    store::fault plan_merge(store::transaction &transaction, std::vector<merge_action> &plan);
    store::fault plan_new(store::transaction &transaction, std::size_t row, bool is_last,
                          std::vector<merge_action> &plan);
    void plan_both(const meta_record &info, std::size_t row, const token_record &stored, bool is_damaged,
                   std::vector<merge_action> &plan);
    void plan_missing(const meta_record &info, const token_digest &digest, const token_record &stored, bool is_damaged,
                      std::vector<merge_action> &plan);
    store::fault carry_out(store::transaction &transaction, const std::vector<merge_action> &plan);
    store::fault drop_tombstones(store::transaction &transaction);
    [[nodiscard]] token_record row_at(std::size_t row) const;

    std::uint64_t sequence_;
    spool spool_;
    pass pass_ = pass::weigh;
    removal removal_;
    stage stage_ = stage::tokens;
    counts counts_;
    std::uint64_t merged_ = 0;

    /// The rows of the buckets that are being merged, and the end of these buckets.
    std::size_t end_bucket_ = 0;
    collection rows_;

    /// How far the merge of these is.
    struct merge_position {
        bool is_end = false;
        std::size_t row = 0;    ///< of rows_
        token_digest digest{};  ///< in the store
    };
    merge_position reached_{.is_end = true};

    /// The state after the step, once that is durable.
    merge_position next_;
    stage next_stage_ = stage::tokens;
    counts step_counts_;
    removal step_removal_;
    std::int64_t now_ = 0;
    std::vector<token_digest> repaired_;
};

}  // namespace pat::cli
