#!/usr/bin/env python3
"""Writes the golden records that test_record.cpp compares with: generate.py [--check]

The format is stated here a second time, from the comment at the head of src/core/pat_record.h and with nothing from
src/. A file that changes is a change of the store's format. --check writes nothing and fails if a file differs.
"""

import ipaddress
import pathlib
import struct
import sys

TOKEN_KEY = b"t" + bytes(range(32))
TOMBSTONE_KEY = b"d" + bytes(range(32))
HELD_KEY = b"h"
EARLY_KEY = b"e" + bytes(range(32))
META_KEY = b"m"


def ip_range(text):
    network = ipaddress.ip_network(text)
    return bytes([network.version, network.prefixlen]) + network.network_address.packed


def claim(name, value):
    return struct.pack("<BH", len(name), len(value)) + name + value


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, as RFC 9260, appendix A, describes it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def seal(key, fields):
    """The fields behind the checksum, with the checksum in front."""
    crc = crc32c(key + b"".join(value for _, value in fields))
    return [("checksum", struct.pack("<I", crc)), *fields]


def optional(name, form, value):
    """A field that is there unless it is 0."""
    return (name, struct.pack(form, value) if form != "time" else value.to_bytes(5, "little")) if value else (name, b"")


def token(id, subject, name=b"", scopes=b"", ranges=(), claims=(), sequence=0, issued_at=0, not_before=0,
          expires_at=0, revoked_at=0, local_revoked_at=0, denied=False, generation=0):
    fields = [
        ("denied", b""),
        optional("generation", "B", generation),
        optional("sequence, lower half", "<I", sequence & 0xFFFFFFFF),
        optional("sequence, upper half", "<I", sequence >> 32),
        optional("issued_at", "time", issued_at),
        optional("not_before", "time", not_before),
        optional("expires_at", "time", expires_at),
        optional("revoked_at", "time", revoked_at),
        optional("local_revoked_at", "time", local_revoked_at),
        optional("name length", "B", len(name)),
        optional("scopes length", "<H", len(scopes)),
        optional("ranges length", "<H", sum(map(len, ranges))),
        optional("claims length", "<H", sum(map(len, claims))),
    ]
    flags = sum(1 << bit for bit, (_, value) in enumerate(fields) if value) | (1 if denied else 0)
    return seal(TOKEN_KEY, [
        ("version", struct.pack("B", 2)),
        ("id length", struct.pack("B", len(id))),
        ("flags", struct.pack("<H", flags)),
        ("subject length", struct.pack("B", len(subject))),
        *fields,
        ("id", id),
        ("subject", subject),
        ("name", name),
        ("scopes", scopes),
        *(("range", one) for one in ranges),
        *(("claim", one) for one in claims),
    ])


def token_1(id, subject, name=b"", scopes=b"", ranges=(), claims=(), sequence=0, issued_at=0, not_before=0,
            expires_at=0, revoked_at=0, local_revoked_at=0, denied=False, generation=0):
    ranges_length = sum(map(len, ranges))
    claims_length = sum(map(len, claims))
    return seal(TOKEN_KEY, [
        ("version", struct.pack("B", 1)),
        ("flags", struct.pack("B", 1 if denied else 0)),
        ("id length", struct.pack("B", len(id))),
        ("subject length", struct.pack("B", len(subject))),
        ("name length", struct.pack("B", len(name))),
        ("generation", struct.pack("B", generation)),
        ("scopes length", struct.pack("<H", len(scopes))),
        ("ranges length", struct.pack("<H", ranges_length)),
        ("claims length", struct.pack("<H", claims_length)),
        ("sequence", struct.pack("<Q", sequence)),
        ("issued_at", struct.pack("<q", issued_at)),
        ("not_before", struct.pack("<q", not_before)),
        ("expires_at", struct.pack("<q", expires_at)),
        ("revoked_at", struct.pack("<q", revoked_at)),
        ("local_revoked_at", struct.pack("<q", local_revoked_at)),
        ("id", id),
        ("subject", subject),
        ("name", name),
        ("scopes", scopes),
        *(("range", one) for one in ranges),
        *(("claim", one) for one in claims),
    ])


def meta(scheme, state, key_id=bytes(8), heartbeat=0, last_sequence=0, tokens=0, revoked=0, snapshot_sequence=0,
         generation=0, open_generations=0, epoch=b"", cursor=b"", version=2, record_format=2):
    return seal(META_KEY, [
        ("version", struct.pack("B", version)),
        ("digest scheme", struct.pack("B", scheme)),
        ("state", struct.pack("B", state)),
        ("generation", struct.pack("B", generation)),
        ("magic", b"auth_pat"),
        ("key id", key_id),
        ("heartbeat", struct.pack("<q", heartbeat)),
        ("last sequence", struct.pack("<Q", last_sequence)),
        ("tokens", struct.pack("<Q", tokens)),
        ("revoked", struct.pack("<Q", revoked)),
        ("snapshot sequence", struct.pack("<Q", snapshot_sequence)),
        ("epoch length", struct.pack("<H", len(epoch))),
        ("cursor length", struct.pack("<H", len(cursor))),
        ("open generations", struct.pack("B", open_generations)),
        ("record format", struct.pack("B", record_format)),
        ("zero", bytes(2)),
        ("epoch", epoch),
        ("cursor", cursor),
    ])


def tombstone(sequence, deleted_at, generation, revoked):
    return seal(TOMBSTONE_KEY, [
        ("version", struct.pack("B", 1)),
        ("generation", struct.pack("B", generation)),
        ("flags", struct.pack("B", 1 if revoked else 0)),
        ("zero", bytes(1)),
        ("sequence", struct.pack("<Q", sequence)),
        ("deleted_at", struct.pack("<q", deleted_at)),
    ])


def early_revocation(local_revoked_at, denied):
    return seal(EARLY_KEY, [
        ("version", struct.pack("B", 1)),
        ("flags", struct.pack("B", 1 if denied else 0)),
        ("zero", bytes(2)),
        ("local_revoked_at", struct.pack("<q", local_revoked_at)),
    ])


def held_snapshot(held_at, received, removed, tokens, accepted, first, epoch):
    return seal(HELD_KEY, [
        ("version", struct.pack("B", 1)),
        ("flags", struct.pack("B", (1 if accepted else 0) | (2 if first else 0))),
        ("epoch length", struct.pack("<H", len(epoch))),
        ("held_at", struct.pack("<q", held_at)),
        ("received", struct.pack("<Q", received)),
        ("removed", struct.pack("<Q", removed)),
        ("tokens", struct.pack("<Q", tokens)),
        ("epoch", epoch),
    ])


FULL_TOKEN = dict(
    id=b"tok_01HV.x:y@z-9", subject=b"user-42", name="CI d\u00e9ploiement".encode(),
    scopes=b"read:orders write:orders admin", ranges=[ip_range("192.0.2.0/24"), ip_range("2001:db8::/32")],
    claims=[claim(b"tenant", b"referon"), claim(b"note", b"x" * 258)],
    sequence=0x0102030405060708, issued_at=1700000000, not_before=1700000060, expires_at=1731536000,
    revoked_at=1710000000, local_revoked_at=1710000001, denied=True, generation=0x21)
FULL_META = dict(
    scheme=2, state=3, key_id=bytes(range(0xF0, 0xF8)), heartbeat=1700000001, last_sequence=0x1112131415161718,
    tokens=290000000, revoked=12345, snapshot_sequence=0x2122232425262728, generation=0x31, open_generations=0x32,
    epoch=b"7f9c2ba4-epoch", cursor=b"0/16B3748;42")

RECORDS = {
    "token_minimal": token(b"a", b"b"),
    "token_full": token(**FULL_TOKEN),
    "token_1_minimal": token_1(b"a", b"b"),
    "token_1_full": token_1(**FULL_TOKEN),
    "meta_minimal": meta(1, 1),
    "meta_full": meta(**FULL_META, record_format=1),
    "meta_1_minimal": meta(1, 1, version=1, record_format=0),
    "meta_1_full": meta(**FULL_META, version=1, record_format=0),
    "tombstone": tombstone(sequence=0x4142434445464748, deleted_at=1710000002, generation=0x51, revoked=True),
    "held_snapshot": held_snapshot(
        held_at=1710000004, received=0x0102030405060708, removed=0x1112131415161718, tokens=0x2122232425262728,
        accepted=True, first=True, epoch=b"7f9c2ba4-epoch"),
    "early_revocation": early_revocation(local_revoked_at=1710000003, denied=True),
}


def main():
    check = sys.argv[1:] == ["--check"]
    folder = pathlib.Path(__file__).resolve().parent
    wrong = 0
    for name, fields in RECORDS.items():
        path = folder / f"{name}.hex"
        text = "".join(f"{value.hex()}  # {field}\n" for field, value in fields if value)
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path} differs", file=sys.stderr)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
