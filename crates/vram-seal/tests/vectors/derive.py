#!/usr/bin/env python3
"""Derives the test vectors of seal format 1 from the format's text alone.

This is a second implementation, in another language and over other libraries, so that the frozen
vectors pin the format and not one program's idea of it. It seals, in this file, and it opens, in
refused.py: each refused vector is one that this implementation refuses with the same answer.

    derive.py            compares with seal-v1.json and refused-v1.json; 1 if anything differs
    derive.py --write    writes both (a deliberate act: a change of them is another format)

Needs the packages `blake3` and `cryptography`. Chaining values of BLAKE3 are not offered by the
former, so the compression function is written out here.
"""

import hashlib
import hmac
import json
import pathlib
import struct
import sys
from typing import NamedTuple

try:
    import blake3 as blake3_package
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
except ImportError as missing:
    print(f"missing: {missing}")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE / "seal-v1.json"
REFUSED = HERE / "refused-v1.json"


class Identity(NamedTuple):
    """What a seal is bound to: the key, and what the caller gives."""

    key: bytes
    model_id: str
    context: bytes = b""
    metadata: bytes = b""
    shard_index: int = 0
    revision: int = 0


FIRST = Identity(
    key=bytes(range(0x20, 0x40)),
    model_id="vector-model \u00e4",
    context=b"tenant 7",
    metadata=b"bf16 [3, 5]",
    shard_index=0x0102030405060708,
    revision=42,
)
IDENTITIES = [
    FIRST,
    # Each differs from the first in one value.
    FIRST._replace(key=bytes(range(0x40, 0x60))),
    FIRST._replace(context=b"tenant 8"),
    FIRST._replace(metadata=b""),
    FIRST._replace(revision=43),
    # The least and the most that the format takes.
    Identity(key=bytes(32), model_id="m"),
    Identity(
        key=b"\xff" * 32,
        model_id="x" * 1024,
        context=bytes(range(256)) * 5,
        metadata=bytes(5000),
        shard_index=2**64 - 1,
        revision=2**64 - 1,
    ),
]

ENCRYPTED, AUTHENTICATED = 1, 2
NONE, SEGMENT, SHARD = 0, 1, 2
AES, CHACHA = 1, 2
MODES = [
    ("authenticated", AUTHENTICATED, NONE, NONE),
    ("segment-aes-256-gcm", ENCRYPTED, SEGMENT, AES),
    ("segment-chacha20-poly1305", ENCRYPTED, SEGMENT, CHACHA),
    ("shard-aes-256-gcm", ENCRYPTED, SHARD, AES),
    ("shard-chacha20-poly1305", ENCRYPTED, SHARD, CHACHA),
]

# BLAKE3, as far as chaining values need it ------------------------------------------------------

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF
COLUMNS_AND_DIAGONALS = [
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
]


def compress(chain, block, counter, block_len, flags):
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    state = list(chain) + IV[:4] + [counter & MASK, counter >> 32, block_len, flags]
    for _ in range(7):
        for turn, (a, b, c, d) in enumerate(COLUMNS_AND_DIAGONALS):
            for word, right, left in ((words[2 * turn], 16, 12), (words[2 * turn + 1], 8, 7)):
                state[a] = (state[a] + state[b] + word) & MASK
                x = state[d] ^ state[a]
                state[d] = (x >> right | x << (32 - right)) & MASK
                state[c] = (state[c] + state[d]) & MASK
                x = state[b] ^ state[c]
                state[b] = (x >> left | x << (32 - left)) & MASK
        words = [words[i] for i in PERMUTATION]
    return [state[i] ^ state[i + 8] for i in range(8)]


def chunk_value(chunk, counter, flags):
    chain = IV
    blocks = [chunk[i:i + 64] for i in range(0, len(chunk), 64)] or [b""]
    for i, block in enumerate(blocks):
        edge = (CHUNK_START if i == 0 else 0) | (CHUNK_END | flags if i == len(blocks) - 1 else 0)
        chain = compress(chain, block, counter, len(block), edge)
    return chain


def parent_value(left, right, flags):
    return compress(IV, struct.pack("<16I", *left, *right), 0, 64, PARENT | flags)


def subtree(data, first_chunk, flags=0):
    """The value of the tree over `data`, which begins at chunk `first_chunk` of the whole."""
    chunks = -(-len(data) // 1024)
    if chunks <= 1:
        return chunk_value(data, first_chunk, flags)
    left = 1 << ((chunks - 1).bit_length() - 1)
    return parent_value(
        subtree(data[:left * 1024], first_chunk),
        subtree(data[left * 1024:], first_chunk + left),
        flags,
    )


def merge(values, flags):
    if len(values) == 1:
        return values[0]
    left = 1 << ((len(values) - 1).bit_length() - 1)
    return parent_value(merge(values[:left], 0), merge(values[left:], 0), flags)


def to_bytes(words):
    return struct.pack("<8I", *words)


def blake3(data):
    return blake3_package.blake3(data).digest()


def keyed(key, data):
    return blake3_package.blake3(data, key=key).digest()


def derive(master, purpose):
    context = "vram-seal v1 2026-11 " + purpose
    return blake3_package.blake3(master, derive_key_context=context).digest()


# The seal ---------------------------------------------------------------------------------------


def content(length):
    return bytes((131 * i + 17 * (i >> 8) + 7) & 0xFF for i in range(length))


def le64(number):
    return struct.pack("<Q", number)


def pieces_of(plaintext, log2):
    size = 1 << log2
    return [plaintext[i:i + size] for i in range(0, len(plaintext), size)] or [b""]


def hashes_of(plaintext, log2):
    """Chaining value of each segment, and the digest of the whole."""
    pieces = pieces_of(plaintext, log2)
    if len(pieces) == 1:
        values = [to_bytes(subtree(plaintext, 0, ROOT))]
        digest = values[0]
    else:
        words = [subtree(piece, (i << log2) // 1024) for i, piece in enumerate(pieces)]
        values = [to_bytes(word) for word in words]
        digest = to_bytes(merge(words, ROOT))
    assert digest == blake3(plaintext), "the merged digest is not BLAKE3 of the whole"
    return values, digest


HASHES = {}


def hashes_of_content(length, log2):
    if (length, log2) not in HASHES:
        HASHES[length, log2] = hashes_of(content(length), log2)
    return HASHES[length, log2]


def binding_code(master, model_id, context):
    model = model_id.encode()
    bound = le64(len(model)) + model + le64(len(context)) + context
    return keyed(derive(master, "binding"), bound)


def metadata_code(master, metadata):
    return keyed(derive(master, "metadata"), metadata)


def bound_bytes(identity, kind, length, log2):
    """Bytes 0 to 127 of the record."""
    mode, scope, suite = kind
    key = identity.key
    count = max(1, -(-length >> log2))
    bound = b"VRSEAL1\0" + struct.pack("<HBBBBBB", 1, mode, scope, suite, 1, log2, 0)
    bound += le64(length) + le64(count) + le64(identity.shard_index) + le64(identity.revision)
    bound += derive(key, "key-id")[:16]
    bound += binding_code(key, identity.model_id, identity.context)
    bound += metadata_code(key, identity.metadata)
    assert len(bound) == 128
    return bound


def trailer_of(i, length, last):
    return le64(i) + le64(length) + bytes([last]) + bytes(15)


def nonce_of(i, last):
    return bytes([last, 0, 0, 0]) + struct.pack(">Q", i)


def cipher(suite, key):
    return (AESGCM if suite == AES else ChaCha20Poly1305)(key)


def finish(master, bound, siv, table):
    """The whole record."""
    ctx = blake3(bound)
    record = bound + siv + keyed(derive(master, "table-mac"), ctx + table) + bytes(32)
    record += hmac.new(derive(master, "header-mac"), record, hashlib.sha256).digest()
    assert len(record) == 256
    return record


def seal(identity, kind, plaintext, log2, hashes=None):
    """Record, table and data. `hashes` are those of `plaintext`, unless a forger says otherwise."""
    mode, scope, suite = kind
    master = identity.key
    values, digest = hashes or hashes_of(plaintext, log2)
    pieces = pieces_of(plaintext, log2)
    bound = bound_bytes(identity, kind, len(plaintext), log2)
    ctx = blake3(bound)
    whole_siv = keyed(derive(master, "siv"), ctx + digest)
    data, table = b"", b""
    for i, (piece, value) in enumerate(zip(pieces, values)):
        last = i == len(pieces) - 1
        trailer = trailer_of(i, len(piece), last)
        if mode == AUTHENTICATED:
            data += piece
            table += keyed(derive(master, "attest"), ctx + value + trailer)
            continue
        siv = whole_siv
        if scope == SEGMENT:
            siv = keyed(derive(master, "siv"), ctx + value + trailer)
        key = keyed(derive(master, "segment-key"), ctx + siv + trailer)
        sealed = cipher(suite, key).encrypt(nonce_of(i, last), piece, None)
        data += sealed[:-16]
        table += (siv if scope == SEGMENT else b"") + sealed[-16:]
    record = finish(master, bound, whole_siv if scope == SHARD else bytes(32), table)
    return record, table, data


def case(identity, name, kind, length, log2):
    values, digest = hashes_of_content(length, log2)
    sealed = seal(IDENTITIES[identity], kind, content(length), log2, (values, digest))
    record, table, data = sealed
    vector = {
        "identity": identity,
        "mode": name,
        "segment_log2": log2,
        "len": length,
        "content_digest": digest.hex(),
        "record": record.hex(),
        "table_blake3": blake3(table).hex(),
        "data_blake3": blake3(data).hex(),
    }
    if len(table) <= 192:
        vector["table"] = table.hex()
    if len(data) <= 17:
        vector["data"] = data.hex()
    return vector


def derive_all():
    small, default = 1 << 12, 1 << 18
    sizes = [(n, 12) for n in (0, 1, 15, 16, 17, small - 1, small, small + 1, 2 * small, 3 * small + 5)]
    sizes += [(n, 18) for n in (default, default + 1, 2 * default + 4099)]
    cases = [(0, *size) for size in sizes]
    cases += [(i, *size) for i in range(1, len(IDENTITIES)) for size in ((17, 12), (small + 1, 12))]
    cases += [(len(IDENTITIES) - 2, 0, 24), (len(IDENTITIES) - 1, 17, 24)]
    return {
        "format": "vram-seal 1",
        "content": "byte i is (131 i + 17 floor(i / 256) + 7) mod 256",
        "identities": [
            {
                "key": one.key.hex(),
                "key_id": derive(one.key, "key-id")[:16].hex(),
                "ticket_key_blake3": blake3(derive(one.key, "ticket")).hex(),
                "model_id": one.model_id,
                "context": one.context.hex(),
                "metadata": one.metadata.hex(),
                "shard_index": one.shard_index,
                "revision": one.revision,
            }
            for one in IDENTITIES
        ],
        "cases": [
            case(identity, name, kind, length, log2)
            for identity, length, log2 in cases
            for name, *kind in MODES
        ],
    }


def compare(path, derived):
    """Prints how a file differs from what was derived; true if it does not."""
    frozen = json.loads(path.read_text()) if path.exists() else {"cases": []}
    if frozen == derived:
        print(f"derived {len(derived['cases'])} vectors, all equal to {path.name}")
        return True
    for name in sorted(set(frozen) | set(derived)):
        if name != "cases" and frozen.get(name) != derived.get(name):
            print(f"{path.name} differs: {name}")
    for number, (old, new) in enumerate(zip(frozen["cases"], derived["cases"])):
        for field in sorted(set(old) | set(new)):
            if old.get(field) != new.get(field):
                print(f"{path.name} differs: case {number}, {new.get('name', new.get('mode'))}: {field}")
    if len(frozen["cases"]) != len(derived["cases"]):
        print(f"{path.name}: {len(frozen['cases'])} frozen, {len(derived['cases'])} derived")
    return False


def main():
    from refused import refused_all

    derived = {VECTORS: derive_all(), REFUSED: refused_all()}
    if sys.argv[1:] == ["--write"]:
        for path, vectors in derived.items():
            path.write_text(json.dumps(vectors, indent=1) + "\n")
            print(f"wrote {len(vectors['cases'])} vectors to {path.name}")
        return 0
    if sys.argv[1:]:
        print(__doc__)
        return 2
    equal = [compare(path, vectors) for path, vectors in derived.items()]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    # refused.py imports this file by its name: both names mean one module. It leaves no file behind.
    sys.dont_write_bytecode = True
    sys.modules["derive"] = sys.modules["__main__"]
    sys.exit(main())
