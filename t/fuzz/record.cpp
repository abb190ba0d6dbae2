/// The codec of token records against its inverse. Input: a byte that says what the rest is, bytes of a record or
/// values for one.

#include "core/pat_crc32c.h"
#include "core/pat_policy.h"
#include "core/pat_record.h"
#include "pat_draw.h"
#include "pat_fuzz.h"

#include <vector>

using namespace pat;

namespace {

const token_key key = make_token_key({});

/// Uses all that a decoded record has, as its users do.
void use(const token_record &record)
{
    const address peers[] = {{}, {address_family::v4, {}}, {address_family::v6, {}}};
    for (const address &peer : peers) {
        const scope_requirement required[] = {{record.scopes}, {"api:read", true}};
        (void) decide(record, {peer, required, 60}, 1000);
    }
    for (auto claims = record.claims; !claims.empty();) {
        const token_claim claim = take_claim(claims);
        expect(find_claim(record, claim.name).has_value());
    }
    for (auto cidrs = record.cidrs; !cidrs.empty();) {
        std::array<char, max_cidr_text_length> text;
        std::size_t length = 0;
        cidrs = format_cidr(cidrs, text, length);
        expect(length < text.size());
    }
}

/// What is decoded is encoded in the same bytes, if it is what a record may hold.
void try_bytes(std::span<const std::byte> given, bool is_sealed)
{
    std::vector<std::byte> bytes{given.begin(), given.end()};
    if (is_sealed && bytes.size() > 4) {
        store_le(bytes.data(), crc32c(key, std::span{bytes}.subspan(4)));
    }

    token_record record;
    if (decode(key, bytes, record) != codec_error::none) {
        return;
    }
    expect(bytes.size() > 4 && load_le<std::uint32_t>(bytes.data()) == crc32c(key, std::span{bytes}.subspan(4)));
    use(record);

    record_buffer buffer;
    const encoded again = encode(key, record, buffer);
    expect((again.error == codec_error::none) == (validate(record) == codec_error::none));
    if (again.error == codec_error::none) {
        expect(std::ranges::equal(again.bytes, bytes));
    }
    bytes[5] ^= std::byte{1};
    expect(decode(key, bytes, record) == codec_error::checksum);
}

/// What is encoded is decoded to the same values, under this key only.
void try_values(fuzz::input &in)
{
    const fuzz::drawn_record drawn{in};
    record_buffer buffer;
    const encoded result = encode(key, drawn.record, buffer);
    if (result.error != codec_error::none) {
        expect(result.bytes.empty());
        expect(validate(drawn.record) == result.error || result.error == codec_error::too_long);
        return;
    }

    token_record decoded;
    expect(decode(key, result.bytes, decoded) == codec_error::none);
    expect(decoded == drawn.record && decoded.format == drawn.record.format);
    expect(decoded.generation == drawn.record.generation);
    use(decoded);

    token_key other = key;
    other[1] = std::byte{1};
    expect(decode(other, result.bytes, decoded) == codec_error::checksum);
    expect(decode(key, result.bytes.first(result.bytes.size() - 1), decoded) != codec_error::none);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};
    switch (in.byte() % 3) {
    case 0: try_values(in); break;
    case 1: try_bytes(bytes_of(in.rest()), true); break;
    default: try_bytes(bytes_of(in.rest()), false); break;
    }
    return 0;
}
