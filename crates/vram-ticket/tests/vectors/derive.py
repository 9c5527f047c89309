#!/usr/bin/env python3
"""Derives the test vectors of model tickets 1 from the format's text alone.

This is a second implementation, in another language and over its standard library, so that the
frozen vectors pin the format and not one program's idea of it.

    derive.py            compares with model-v1.json; 1 if anything differs
    derive.py --write    writes it (a deliberate act: a change of it is another format)
"""

import hashlib
import hmac
import json
import pathlib
import struct
import sys

VECTORS = pathlib.Path(__file__).resolve().parent / "model-v1.json"
KEY = bytes(range(0x40, 0x60))
# Crockford's base 32, without I, L, O and U.
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def shard_id(number):
    """A prefix and 26 digits of a 128-bit number."""
    digits = "".join(DIGITS[(number >> shift) & 31] for shift in range(125, -5, -5))
    return "orch-shard-" + digits


def record(seed):
    """256 bytes that are no seal: a root does not look inside."""
    return bytes((seed * 31 + at * 7 + (at >> 5)) % 256 for at in range(256))


def root(shards):
    data = b"vram-modelroot/1" + struct.pack("<Q", len(shards))
    for name, content in shards:
        assert len(content) == 256
        data += struct.pack("<H", len(name)) + name.encode() + content
    return hashlib.sha256(data).digest()


def sign(statement):
    return hmac.new(KEY, statement, hashlib.sha256).digest()


def text(value):
    encoded = (value or "").encode()
    assert len(encoded) <= 1024
    return struct.pack("<H", len(encoded)) + encoded


def ticket(fields):
    """The signed statement and its signature."""
    there = [(1, fields["node"]), (2, fields["owner"]), (8, fields["last_verified"])]
    flags = sum(bit for bit, value in there if value is not None)
    evidence, site = fields.get("checked") or ("proof", "host")
    flags |= (16 if evidence == "fingerprint" else 0) | (32 if site == "card" else 0)
    gpus = sorted(bytes.fromhex(uuid) for uuid in fields["gpus"])
    statement = b"vram-models/0001" + struct.pack("<BBH", 1, flags, len(gpus))
    statement += bytes.fromhex(fields["nonce"]) + bytes.fromhex(fields["manager"])
    statement += sign(b"vram-ticket/key2")[:16] + bytes.fromhex(fields["root"])
    statement += struct.pack(
        "<8Q",
        fields["shard_count"],
        fields["plaintext_len"],
        fields["authenticated"],
        fields["quarantined"],
        fields["admission"],
        fields["last_verified"] or 0,
        fields["unverified_ms"],
        fields["issued_at"],
    )
    statement += b"".join(gpus)
    for field in ("model_id", "node", "owner"):
        statement += text(fields[field])
    return statement + sign(statement)


def roots():
    """Each differs from the first in one thing."""
    first = [(shard_id(number << 80 | number), record(number)) for number in (1, 2, 3)]
    altered = bytearray(first[1][1])
    altered[255] ^= 1
    return {
        "three": first,
        "none": [],
        "one": first[:1],
        "swapped": [first[1], first[0], first[2]],
        "omitted": [first[0], first[2]],
        "duplicated": [first[0], first[1], first[1], first[2]],
        "records exchanged": [(first[0][0], first[1][1]), (first[1][0], first[0][1]), first[2]],
        "another id": [first[0], first[1], (shard_id(4 << 80 | 4), first[2][1])],
        "one bit": [first[0], (first[1][0], bytes(altered)), first[2]],
        "the largest id": [(shard_id(2**128 - 1), record(9))],
    }


def tickets():
    first = {
        "nonce": bytes(range(32)).hex(),
        "manager": bytes(range(0xA0, 0xB0)).hex(),
        "node": "node-1",
        "model_id": "vector-model \u00e4",
        "owner": "pool 7",
        "admission": 5,
        "gpus": [bytes([0x22] * 16).hex(), bytes([0x11] * 16).hex()],
        "shard_count": 3,
        "plaintext_len": 0x0102030405060708,
        "authenticated": 2,
        "root": root(roots()["three"]).hex(),
        "quarantined": 1,
        "last_verified": 1_800_000_000_000,
        "unverified_ms": 1234,
        "issued_at": 1_800_000_001_234,
    }
    least = dict(
        first,
        node=None,
        owner=None,
        last_verified=None,
        gpus=[],
        model_id="m",
        admission=0,
        shard_count=0,
        plaintext_len=0,
        authenticated=0,
        quarantined=0,
        unverified_ms=0,
        root=root([]).hex(),
    )
    most = dict(
        first,
        node="n" * 1024,
        owner="\u00f6" * 512,
        model_id="x" * 1024,
        gpus=[struct.pack(">QQ", 7, number).hex() for number in range(256)],
        admission=2**64 - 1,
        shard_count=2**64 - 1,
        plaintext_len=2**64 - 1,
        authenticated=2**64 - 1,
        quarantined=2**64 - 1,
        last_verified=2**64 - 1,
        unverified_ms=2**64 - 1,
        issued_at=2**64 - 1,
    )
    checks = [[evidence, site] for evidence in ("proof", "fingerprint") for site in ("host", "card")]
    return [
        first,
        least,
        most,
        dict(first, node=""),
        dict(first, last_verified=0),
        *(dict(first, checked=check) for check in checks[1:]),
    ]


def derive_all():
    return {
        "format": "vram-models 1",
        "ticket_key": KEY.hex(),
        "ticket_key_id": sign(b"vram-ticket/key2")[:16].hex(),
        "roots": [
            {
                "name": name,
                "shards": [{"id": id, "record": content.hex()} for id, content in shards],
                "root": root(shards).hex(),
            }
            for name, shards in roots().items()
        ],
        "tickets": [{"fields": fields, "bytes": ticket(fields).hex()} for fields in tickets()],
    }


def main():
    derived = derive_all()
    if sys.argv[1:] == ["--write"]:
        VECTORS.write_text(json.dumps(derived, indent=1) + "\n")
        print(f"wrote {VECTORS.name}")
        return 0
    if sys.argv[1:]:
        print(__doc__)
        return 2
    frozen = json.loads(VECTORS.read_text()) if VECTORS.exists() else {}
    differing = [name for name in sorted(set(frozen) | set(derived)) if frozen.get(name) != derived.get(name)]
    for name in differing:
        print(f"{VECTORS.name} differs: {name}")
    if not differing:
        count = len(derived["roots"]) + len(derived["tickets"])
        print(f"derived {count} vectors, all equal to {VECTORS.name}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
