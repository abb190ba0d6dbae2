#include "writer/pat_held.h"

#include "core/pat_bytes.h"
#include "core/pat_crc32c.h"
#include "core/pat_rules.h"

#include <algorithm>

namespace pat::store {

namespace {

constexpr std::array<std::byte, 1> the_key{std::byte{'h'}};
constexpr std::byte accepted_flag{1};
constexpr std::byte first_flag{2};

/// Offsets, as drawn in the header.
constexpr std::size_t checksum_at = 0;
constexpr std::size_t version_at = 4;
constexpr std::size_t flags_at = 5;
constexpr std::size_t epoch_length_at = 6;
constexpr std::size_t held_at_at = 8;
constexpr std::size_t received_at = 16;
constexpr std::size_t removed_at = 24;
constexpr std::size_t tokens_at = 32;
constexpr std::size_t epoch_at = 40;

std::uint32_t checksum_of(std::span<const std::byte> value) noexcept
{
    return crc32c(the_key, value.subspan(version_at));
}

}  // namespace

std::span<const std::byte> held_key() noexcept
{
    return the_key;
}

codec_error decode(std::span<const std::byte> value, held_snapshot &out) noexcept
{
    if (value.size() < epoch_at) {
        return codec_error::too_short;
    }
    if (std::to_integer<std::uint8_t>(value[version_at]) > first_format) {
        return codec_error::newer_version;
    }
    if (value.size() > epoch_at + max_epoch_length) {
        return codec_error::too_long;
    }
    if (load_le<std::uint32_t>(&value[checksum_at]) != checksum_of(value)) {
        return codec_error::checksum;
    }
    const std::byte flags = value[flags_at];
    const auto held_at = load_le<std::int64_t>(&value[held_at_at]);
    if (std::to_integer<std::uint8_t>(value[version_at]) != first_format
        || (flags & ~(accepted_flag | first_flag)) != std::byte{0} || !is_time(held_at)
        || epoch_at + load_le<std::uint16_t>(&value[epoch_length_at]) != value.size()) {
        return codec_error::inconsistent;
    }

    out.held_at = held_at;
    out.received = load_le<std::uint64_t>(&value[received_at]);
    out.removed = load_le<std::uint64_t>(&value[removed_at]);
    out.tokens = load_le<std::uint64_t>(&value[tokens_at]);
    out.is_accepted = (flags & accepted_flag) != std::byte{0};
    out.is_first = (flags & first_flag) != std::byte{0};
    out.epoch = text_of(value.subspan(epoch_at));
    return codec_error::none;
}

encoded encode(const held_snapshot &held, held_buffer &buffer) noexcept
{
    if (held.epoch.size() > max_epoch_length) {
        return {codec_error::epoch, {}};
    }
    if (!is_time(held.held_at)) {
        return {codec_error::time, {}};
    }

    std::fill(buffer.begin(), buffer.end(), std::byte{0});
    buffer[version_at] = std::byte{first_format};
    buffer[flags_at] = (held.is_accepted ? accepted_flag : std::byte{0}) | (held.is_first ? first_flag : std::byte{0});
    store_le(&buffer[epoch_length_at], static_cast<std::uint16_t>(held.epoch.size()));
    store_le(&buffer[held_at_at], held.held_at);
    store_le(&buffer[received_at], held.received);
    store_le(&buffer[removed_at], held.removed);
    store_le(&buffer[tokens_at], held.tokens);
    std::ranges::copy(bytes_of(held.epoch), &buffer[epoch_at]);

    const auto bytes = std::span{buffer}.first(epoch_at + held.epoch.size());
    store_le(&buffer[checksum_at], checksum_of(bytes));
    return {codec_error::none, bytes};
}

}  // namespace pat::store
