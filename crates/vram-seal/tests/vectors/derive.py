#!/usr/bin/env python3
"""Derives the test vectors of seal format 1 from the format's text alone.

This is a second implementation, in another language and over other libraries, so that the frozen
vectors pin the format and not one program's idea of it.

    derive.py            compares what it derives with seal-v1.json; 1 if anything differs
    derive.py --write    writes seal-v1.json (a deliberate act: a change of it is another format)

Needs the packages `blake3` and `cryptography`. Chaining values of BLAKE3 are not offered by the
former, so the compression function is written out here.
"""

import hashlib
import hmac
import json
import pathlib
import struct
import sys

try:
    import blake3 as blake3_package
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
except ImportError as missing:
    print(f"missing: {missing}")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE / "seal-v1.json"

KEY = bytes(range(0x20, 0x40))
MODEL_ID = "vector-model \u00e4"
CONTEXT = b"tenant 7"
METADATA = b"bf16 [3, 5]"
SHARD_INDEX = 0x0102030405060708
REVISION = 42

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


def derive(purpose):
    context = "vram-seal v1 2026-11 " + purpose
    return blake3_package.blake3(KEY, derive_key_context=context).digest()


# The seal ---------------------------------------------------------------------------------------


def content(length):
    return bytes((131 * i + 17 * (i >> 8) + 7) & 0xFF for i in range(length))


def le64(number):
    return struct.pack("<Q", number)


HASHES = {}


def hashes_of(length, log2):
    """Chaining value of each segment, and the digest of the whole."""
    if (length, log2) not in HASHES:
        plaintext, size = content(length), 1 << log2
        pieces = [plaintext[i:i + size] for i in range(0, length, size)] or [b""]
        if len(pieces) == 1:
            values = [to_bytes(subtree(plaintext, 0, ROOT))]
            digest = values[0]
        else:
            words = [subtree(piece, i * size // 1024) for i, piece in enumerate(pieces)]
            values = [to_bytes(word) for word in words]
            digest = to_bytes(merge(words, ROOT))
        assert digest == blake3(plaintext), "the merged digest is not BLAKE3 of the whole"
        HASHES[length, log2] = pieces, values, digest
    return HASHES[length, log2]


def seal(mode, scope, suite, length, log2):
    pieces, values, digest = hashes_of(length, log2)
    model = MODEL_ID.encode()
    bound = b"VRSEAL1\0" + struct.pack("<HBBBBBB", 1, mode, scope, suite, 1, log2, 0)
    bound += le64(length) + le64(len(pieces)) + le64(SHARD_INDEX) + le64(REVISION)
    bound += derive("key-id")[:16]
    bound += blake3(le64(len(model)) + model + le64(len(CONTEXT)) + CONTEXT)
    bound += blake3(METADATA)
    assert len(bound) == 128
    ctx = blake3(bound)

    whole_siv = keyed(derive("siv"), ctx + digest)
    data, table = b"", b""
    for i, (piece, value) in enumerate(zip(pieces, values)):
        last = i == len(pieces) - 1
        trailer = le64(i) + le64(len(piece)) + bytes([last]) + bytes(15)
        if mode == AUTHENTICATED:
            data += piece
            table += keyed(derive("attest"), ctx + value + trailer)
            continue
        siv = whole_siv if scope == SHARD else keyed(derive("siv"), ctx + value + trailer)
        key = keyed(derive("segment-key"), ctx + siv + trailer)
        nonce = bytes([last, 0, 0, 0]) + struct.pack(">Q", i)
        sealed = (AESGCM if suite == AES else ChaCha20Poly1305)(key).encrypt(nonce, piece, None)
        data += sealed[:-16]
        table += (siv if scope == SEGMENT else b"") + sealed[-16:]

    record = bound + (whole_siv if scope == SHARD else bytes(32))
    record += keyed(derive("table-mac"), ctx + table) + bytes(32)
    record += hmac.new(derive("header-mac"), record, hashlib.sha256).digest()
    assert len(record) == 256
    return record, table, data, digest


def case(name, mode, scope, suite, length, log2):
    record, table, data, digest = seal(mode, scope, suite, length, log2)
    vector = {
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
    return {
        "format": "vram-seal 1",
        "content": "byte i is (131 i + 17 floor(i / 256) + 7) mod 256",
        "key": KEY.hex(),
        "key_id": derive("key-id")[:16].hex(),
        "ticket_key_blake3": blake3(derive("ticket")).hex(),
        "model_id": MODEL_ID,
        "context": CONTEXT.hex(),
        "metadata": METADATA.hex(),
        "shard_index": SHARD_INDEX,
        "revision": REVISION,
        "cases": [case(*mode, *size) for size in sizes for mode in MODES],
    }


def main():
    derived = derive_all()
    if sys.argv[1:] == ["--write"]:
        VECTORS.write_text(json.dumps(derived, indent=1) + "\n")
        print(f"wrote {len(derived['cases'])} vectors")
        return 0
    if sys.argv[1:]:
        print(__doc__)
        return 2
    frozen = json.loads(VECTORS.read_text())
    if frozen == derived:
        print(f"derived {len(derived['cases'])} vectors, all equal to the frozen ones")
        return 0
    for name in sorted(set(frozen) | set(derived)):
        if name != "cases" and frozen.get(name) != derived.get(name):
            print(f"differs: {name}")
    for old, new in zip(frozen["cases"], derived["cases"]):
        for field in sorted(set(old) | set(new)):
            if old.get(field) != new.get(field):
                print(f"differs: {new['mode']}, {new['len']} bytes: {field}")
    if len(frozen["cases"]) != len(derived["cases"]):
        print(f"differs: {len(frozen['cases'])} cases frozen, {len(derived['cases'])} derived")
    return 1


if __name__ == "__main__":
    sys.exit(main())
