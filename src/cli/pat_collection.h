#pragma once

#include "core/pat_digest.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

namespace pat::cli {

/// Encoded records with their digests and an order among those of the same digest, in memory that never moves, and an
/// index of them:
///
///     chunk:  digest[32]  order  length  record …  digest[32]  order  length  record …
///     index:  first 8 bytes of the digest, pointer into a chunk
///
/// A million records take some 230 MB, and sorting moves 16 bytes for each.
class collection {
public:
    struct item {
        token_digest digest;
        std::uint64_t order;
        std::span<const std::byte> record;  ///< may be empty
    };

    void add(const token_digest &digest, std::uint64_t order, std::span<const std::byte> record)
    {
        const std::size_t size = header_length + record.size();
        if (room_ < size) {
            chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(chunk_bytes));
            free_ = chunks_.back().get();
            room_ = chunk_bytes;
        }

        const auto length = static_cast<std::uint16_t>(record.size());
        std::memcpy(free_, digest.data(), digest.size());
        std::memcpy(free_ + order_at, &order, sizeof order);
        std::memcpy(free_ + length_at, &length, sizeof length);
        std::ranges::copy(record, free_ + header_length);

        index_.push_back({prefix_of(digest), free_});
        free_ += size;
        room_ -= size;
    }

    /// By digest, and those with the same digest by their order, then as they were added.
    void sort()
    {
        std::ranges::stable_sort(index_, [](const entry &a, const entry &b) {
            if (a.prefix != b.prefix) {
                return a.prefix < b.prefix;
            }
            const int difference = std::memcmp(a.item, b.item, digest_length);
            return difference != 0 ? difference < 0 : order_of(a.item) < order_of(b.item);
        });
    }

    /// Removes all but the last of those with the same digest, after sort(), and calls `visit(order, last order)`.
    template <typename Visit>
    void keep_last(const Visit &visit)
    {
        std::size_t kept = 0;
        for (std::size_t i = 0; i < index_.size(); i++) {
            const bool is_last =
                i + 1 == index_.size() || std::memcmp(index_[i].item, index_[i + 1].item, digest_length) != 0;
            if (is_last) {
                index_[kept++] = index_[i];
            } else {
                visit(order_of(index_[i].item), order_of(index_[i + 1].item));
            }
        }
        index_.resize(kept);
    }

    [[nodiscard]] std::size_t size() const noexcept { return index_.size(); }

    [[nodiscard]] item operator[](std::size_t index) const noexcept
    {
        const std::byte *stored = index_[index].item;
        item result;
        std::memcpy(result.digest.data(), stored, result.digest.size());
        result.order = order_of(stored);
        std::uint16_t length;
        std::memcpy(&length, stored + length_at, sizeof length);
        result.record = {stored + header_length, length};
        return result;
    }

private:
    struct entry {
        std::uint64_t prefix;
        const std::byte *item;
    };

    static constexpr std::size_t order_at = digest_length;
    static constexpr std::size_t length_at = order_at + sizeof(std::uint64_t);
    static constexpr std::size_t header_length = length_at + sizeof(std::uint16_t);
    static constexpr std::size_t chunk_bytes = std::size_t{4} << 20;

    static std::uint64_t prefix_of(const token_digest &digest) noexcept
    {
        std::uint64_t prefix = 0;
        for (std::size_t i = 0; i < sizeof prefix; i++) {
            prefix = prefix << 8 | std::to_integer<std::uint64_t>(digest[i]);
        }
        return prefix;
    }

    static std::uint64_t order_of(const std::byte *stored) noexcept
    {
        std::uint64_t order;
        std::memcpy(&order, stored + order_at, sizeof order);
        return order;
    }

    std::vector<std::unique_ptr<std::byte[]>> chunks_;
    std::byte *free_ = nullptr;
    std::size_t room_ = 0;
    std::vector<entry> index_;
};

}  // namespace pat::cli
