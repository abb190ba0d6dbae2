/// The codecs of the meta record, tombstones, early revocations and snapshots that are held back, against their
/// inverses. Input: a byte that says which and how, and bytes of a record.

#include "core/pat_crc32c.h"
#include "core/pat_record.h"
#include "pat_fuzz.h"
#include "writer/pat_held.h"

#include <vector>

using namespace pat;

namespace {

/// Decodes the bytes, whose checksum is made right before if it `is_sealed`, and encodes the result again.
template <typename Entry, typename Decode, typename Encode>
void try_bytes(std::span<const std::byte> key, std::span<const std::byte> given, bool is_sealed, const Decode &decode,
               const Encode &encode)
{
    std::vector<std::byte> bytes{given.begin(), given.end()};
    if (is_sealed && bytes.size() > 4) {
        store_le(bytes.data(), crc32c(key, std::span{bytes}.subspan(4)));
    }

    Entry entry;
    if (decode(std::span<const std::byte>{bytes}, entry) != codec_error::none) {
        return;
    }
    const encoded again = encode(entry);
    expect(again.error == codec_error::none);
    expect(std::ranges::equal(again.bytes, bytes));

    bytes.back() ^= std::byte{1};
    expect(decode(std::span<const std::byte>{bytes}, entry) == codec_error::checksum);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};
    const std::uint8_t kind = in.byte();
    const bool is_sealed = (kind & 1) != 0;
    const auto bytes = bytes_of(in.rest());
    record_buffer buffer;
    store::held_buffer held_buffer;

    const auto try_entry = [&]<typename Entry>(const Entry &, const token_key &key) {
        try_bytes<Entry>(
            key, bytes, is_sealed,
            [&](std::span<const std::byte> value, Entry &out) { return decode(key, value, out); },
            [&](const Entry &entry) { return encode(key, entry, buffer); });
    };
    switch (kind / 2 % 4) {
    case 0:
        try_bytes<meta_record>(meta_key(), bytes, is_sealed, decode_meta,
                               [&](const meta_record &meta) { return encode_meta(meta, buffer); });
        break;
    case 1: try_entry(tombstone{}, make_tombstone_key({})); break;
    case 2: try_entry(early_revocation{}, make_early_key({})); break;
    default:
        try_bytes<store::held_snapshot>(
            store::held_key(), bytes, is_sealed,
            [](std::span<const std::byte> value, store::held_snapshot &out) { return store::decode(value, out); },
            [&](const store::held_snapshot &held) { return store::encode(held, held_buffer); });
        break;
    }
    return 0;
}
