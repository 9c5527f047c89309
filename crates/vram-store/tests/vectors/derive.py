#!/usr/bin/env python3
"""Derives the test vectors of store format 1 from the format's text alone.

This is a second implementation, in another language and over its standard library, so that the frozen
vectors pin the format and not one program's idea of it.

    derive.py            compares with store-v1.json; 1 if anything differs
    derive.py --write    writes it (a deliberate act: a change of it is another format)

BLAKE3 is written out here. Many chunks are hashed at once: each 32-bit word of the state is one large
integer, with a lane of 64 bits for each chunk.
"""

import array
import hashlib
import hmac
import json
import pathlib
import struct
import sys

VECTORS = pathlib.Path(__file__).resolve().parent / "store-v1.json"
KEY = bytes(range(0x20, 0x40))
PART = 8 << 20

# BLAKE3 -----------------------------------------------------------------------------------------

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64
MIXES = [
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
]


def lanes(words):
    """One integer from a word for each lane."""
    return int.from_bytes(array.array("Q", words).tobytes(), "little")


def unlane(value, count):
    return array.array("Q", value.to_bytes(8 * count, "little")).tolist()


def compress(chain, block, counters, block_len, flags, count):
    """Compresses a block in each of `count` lanes. `chain` and `block` hold an integer a word."""
    ones = lanes([1] * count)
    mask = ones * 0xFFFFFFFF
    turn = lambda x, by: ((x >> by) | (x << (32 - by))) & mask
    state = list(chain) + [word * ones for word in IV[:4]]
    state += [lanes([c & 0xFFFFFFFF for c in counters]), lanes([c >> 32 for c in counters])]
    state += [block_len * ones, flags * ones]
    words = list(block)
    for _ in range(7):
        for mix, (a, b, c, d) in enumerate(MIXES):
            for word, right, left in ((words[2 * mix], 16, 12), (words[2 * mix + 1], 8, 7)):
                state[a] = (state[a] + state[b] + word) & mask
                state[d] = turn(state[d] ^ state[a], right)
                state[c] = (state[c] + state[d]) & mask
                state[b] = turn(state[b] ^ state[c], left)
        words = [words[i] for i in PERMUTATION]
    return [state[i] ^ state[i + 8] for i in range(8)]


def one_chunk(key, data, counter, flags, root):
    """The chaining value of one chunk, which may be short."""
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    chain = key
    for at, block in enumerate(blocks):
        these = flags | (CHUNK_START if at == 0 else 0)
        if at == len(blocks) - 1:
            these |= CHUNK_END | (ROOT if root else 0)
        words = struct.unpack("<16I", block.ljust(64, b"\0"))
        chain = compress(chain, words, [counter], len(block), these, 1)
    return chain


def whole_chunks(key, data, first, flags):
    """The chaining values of whole chunks, all at once."""
    count = len(data) // 1024
    words = array.array("I", data)
    ones = lanes([1] * count)
    chain = [word * ones for word in key]
    for block in range(16):
        these = flags | (CHUNK_START if block == 0 else 0) | (CHUNK_END if block == 15 else 0)
        message = [lanes(words[block * 16 + word :: 256]) for word in range(16)]
        chain = compress(chain, message, range(first, first + count), 64, these, count)
    return list(zip(*(unlane(word, count) for word in chain)))


def parents(key, pairs, flags):
    count = len(pairs)
    message = [lanes([pair[word] for pair in pairs]) for word in range(16)]
    ones = lanes([1] * count)
    chain = compress([word * ones for word in key], message, [0] * count, 64, flags | PARENT, count)
    return list(zip(*(unlane(word, count) for word in chain)))


def subtree(data, first, root, key=IV, flags=0):
    """The value of the subtree over `data`, whose first chunk has the number `first`."""
    if len(data) <= 1024:
        return tuple(one_chunk(key, data, first, flags, root))
    whole = len(data) // 1024 * 1024
    level = whole_chunks(key, data[:whole], first, flags)
    if whole < len(data):
        level.append(tuple(one_chunk(key, data[whole:], first + whole // 1024, flags, False)))
    # Joining neighbours, an odd one carried up, gives the left subtrees a power of two of chunks.
    while len(level) > 1:
        pairs = [a + b for a, b in zip(level[::2], level[1::2])]
        last = root and len(level) == 2
        joined = parents(key, pairs, flags | (ROOT if last else 0))
        level = joined + level[len(pairs) * 2 :]
    return level[0]


def to_bytes(chain):
    return struct.pack("<8I", *chain)


def blake3(data):
    return to_bytes(subtree(data, 0, True))


def derive(context, material):
    key = struct.unpack("<8I", to_bytes(subtree(context.encode(), 0, True, IV, CONTEXT)))
    return to_bytes(subtree(material, 0, True, list(key), MATERIAL))


assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

# The format -------------------------------------------------------------------------------------


def content(length):
    line = [bytes((131 * i + 17 * row + 7) % 256 for i in range(256)) for row in range(256)]
    rows = -(-length // 256)
    return b"".join(line[row % 256] for row in range(rows))[:length]


def image(length):
    data = content(length)
    parts = [data[at : at + PART] for at in range(0, len(data), PART)] or [b""]
    if len(parts) == 1:
        values = [subtree(data, 0, True)]
        digest = values[0]
    else:
        values = [subtree(part, at * (PART // 1024), False) for at, part in enumerate(parts)]
        level = values
        while len(level) > 1:
            pairs = [a + b for a, b in zip(level[::2], level[1::2])]
            joined = parents(IV, pairs, ROOT if len(level) == 2 else 0)
            level = joined + level[len(pairs) * 2 :]
        digest = level[0]
    name = to_bytes(digest).hex()
    return {
        "len": length,
        "id": name,
        "parts": [to_bytes(value).hex() for value in values],
        "image_key": f"v1/images/{name[:2]}/{name}.vseal",
        "parts_key": f"v1/images/{name[:2]}/{name}.parts",
    }


def folder(model):
    slug = ""
    for letter in model:
        letter = letter.lower() if letter.isascii() else letter
        kept = letter if letter in "abcdefghijklmnopqrstuvwxyz0123456789._" else "-"
        if len(slug) >= 48 or (not slug and kept in "-.") or (kept == "-" and slug.endswith("-")):
            continue
        slug += kept
    slug = slug.rstrip("-") or "model"
    return f"v1/models/{slug}-{blake3(model.encode()).hex()[:8]}"


def manifest(fields):
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    signed = text[:-1].encode()
    code = hmac.new(derive("vram-seal v1 2026-11 manifest", KEY), signed, hashlib.sha256).hexdigest()
    data = signed + f',"mac":"{code}"}}'.encode()
    digest = blake3(data).hex()
    name = f"{fields['revision']:020}-{digest}.manifest"
    return {
        "text": data.decode(),
        "id": digest,
        "key": f"{folder(fields['model'])}/{name}",
    }


def fields(model, revision, fleet, protection, lengths, ranks):
    shards = [
        {
            "index": at,
            "plaintext_len": length,
            "image": blake3(content(length)).hex(),
            "image_len": length + 4096,
            "record_mac": bytes((at + i) % 256 for i in range(32)).hex(),
        }
        for at, length in enumerate(lengths)
    ]
    return {
        "vram_manifest": 1,
        "fleet": fleet,
        "model": model,
        "revision": revision,
        "context": blake3(b"context").hex(),
        "key_id": derive("vram-seal v1 2026-11 key-id", KEY)[:16].hex(),
        "created": "2026-11-26T11:40:00Z",
        "protection": protection,
        "ranks": ranks,
        "shards": shards,
        "source": {"format": "safetensors", "digest": blake3(b"listing").hex()},
    }


def vectors():
    models = [
        "llama-3-70b", "Meta/Llama 3.1", "../../etc", ".hidden", "--", "模型", "a/b", "a b",
        "x" * 1024, "Q4_K_M.gguf", "ÄB", "a" * 47 + "/b",
    ]
    manifests = [
        fields("llama-3-70b", 7, None, "encrypted", [0, 1, 5000], [[0, 1], [2]]),
        fields('quote " back \\ tab \t bell \u0007 del \u007f é 模', 2**64 - 1, "prod", "authenticated", [9], [[], [0]]),
        fields("m", 0, "f" * 256, "encrypted", list(range(300)), [list(range(300))]),
    ]
    return {
        "format": "vram-store 1",
        "master": KEY.hex(),
        "images": [image(n) for n in (0, 1, 1024, 1025, 5000, PART, PART + 1, 2 * PART + 77)],
        "folders": [{"model": model, "folder": folder(model)} for model in models],
        "manifests": [manifest(one) for one in manifests],
    }


def main():
    text = json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--write"]:
        VECTORS.write_text(text, encoding="utf-8")
        print(f"wrote {VECTORS.name}")
    elif VECTORS.read_text(encoding="utf-8") != text:
        print(f"{VECTORS.name} is not what the format's text gives")
        sys.exit(1)
    else:
        print(f"derived {VECTORS.name} anew, and it is the same")


if __name__ == "__main__":
    main()
