"""What format 1 refuses: an opener written from the text of the format, and seals made to be refused.

Each case is built with the answer that its maker means it to have, and opened here: a case counts
only if this opener gives that answer. Makers that sign what they altered hold the key.
"""

import hashlib
import hmac
import struct

import derive
from derive import (
    AES, AUTHENTICATED, CHACHA, ENCRYPTED, FIRST, NONE, SEGMENT, SHARD, binding_code, blake3, cipher,
    content, finish, hashes_of, keyed, le64, metadata_code, nonce_of, pieces_of, seal, trailer_of,
)

KINDS = {
    (ENCRYPTED, SEGMENT, AES), (ENCRYPTED, SEGMENT, CHACHA), (ENCRYPTED, SHARD, AES),
    (ENCRYPTED, SHARD, CHACHA), (AUTHENTICATED, NONE, NONE),
}
ENTRY_LEN = {NONE: 32, SEGMENT: 48, SHARD: 16}
PROTECTIONS = {"encrypted": ENCRYPTED, "authenticated": AUTHENTICATED}
SCOPES = {"segment": SEGMENT, "shard": SHARD}
SUITES = {"aes-256-gcm": AES, "chacha20-poly1305": CHACHA}

# Bytes, in a form that stays short ---------------------------------------------------------------


def zeros(count):
    return {"byte": 0, "count": count}


def expand(pieces):
    """A list of hexadecimal texts and of runs of one byte."""
    return b"".join(
        bytes.fromhex(piece) if isinstance(piece, str) else bytes([piece["byte"]]) * piece["count"]
        for piece in pieces
    )


def packed(data):
    """Bytes as such a list: a run of more than 64 zeros is counted."""
    pieces, at = [], 0
    while at < len(data):
        run = len(data) - at - len(data[at:].lstrip(b"\0"))
        if run > 64:
            pieces.append(zeros(run))
            at += run
            continue
        end = data.find(bytes(65), at)
        end = len(data) if end < 0 else end
        pieces.append(data[at:end].hex())
        at = end
    return pieces


# Opening, in the order of section 5 of the format ------------------------------------------------


class Refused(Exception):
    """The answer: a code, and what it names."""


def open_record(key, record, expected):
    if len(record) < 256:
        raise Refused("wrong-length", None)
    record = record[:256]
    if record[:8] != b"VRSEAL1\0":
        raise Refused("not-a-seal", None)
    if struct.unpack("<H", record[8:10])[0] != 1:
        raise Refused("unsupported-version", None)
    if record[13] != 1:
        raise Refused("unsupported-hash", None)
    if record[48:64] != derive.derive(key, "key-id")[:16]:
        raise Refused("wrong-key", None)
    code = hmac.new(derive.derive(key, "header-mac"), record[:224], hashlib.sha256).digest()
    if not hmac.compare_digest(code, record[224:]):
        raise Refused("record-mismatch", None)
    kind, log2 = tuple(record[10:13]), record[14]
    length, count, index, revision = struct.unpack("<QQQQ", record[16:48])
    for bad, field in [
        (kind not in KINDS, "combination of mode, scope and cipher"),
        (record[15] != 0, "flag"),
        (record[192:224] != bytes(32), "reserved byte"),
        (kind[1] != SHARD and record[128:160] != bytes(32), "synthetic IV where there is none"),
        (not 12 <= log2 <= 24, "segment size"),
        (length > 1 << 48, "plaintext length"),
        (count > 1 << 24 or count != max(1, -(-length >> log2)), "segment count"),
    ]:
        if bad:
            raise Refused("malformed-record", field)
    wanted = expected.get
    if "model_id" in expected:
        bound = binding_code(key, wanted("model_id"), bytes.fromhex(wanted("context", "")))
        if record[64:96] != bound:
            raise Refused("context-mismatch", "model id or context")
    if "metadata" in expected:
        if record[96:128] != metadata_code(key, bytes.fromhex(wanted("metadata"))):
            raise Refused("context-mismatch", "metadata")
    for name, found, field in [
        ("shard_index", index, "shard index"), ("revision", revision, "revision"),
    ]:
        if name in expected and wanted(name) != found:
            raise Refused("context-mismatch", field)
    if wanted("protection") != "any" and PROTECTIONS[wanted("protection")] != kind[0]:
        raise Refused("protection-mismatch", None)
    if "scope" in expected and SCOPES[wanted("scope")] != kind[1]:
        raise Refused("context-mismatch", "scope of the synthetic IV")
    if "suite" in expected and SUITES[wanted("suite")] != kind[2]:
        raise Refused("context-mismatch", "cipher")
    if length > wanted("max_len", 1 << 48):
        raise Refused("too-long", None)
    return kind, log2, length, count


def check_table(key, record, kind, count, table):
    if len(table) != count * ENTRY_LEN[kind[1]]:
        raise Refused("wrong-length", None)
    ctx = blake3(record[:128])
    if keyed(derive.derive(key, "table-mac"), ctx + table) != record[160:192]:
        raise Refused("table-mismatch", None)
    return ctx


def open_data(key, record, fields, table, ctx, data):
    """Every segment, then the content as a whole."""
    (mode, scope, suite), log2, length, count = fields
    size = ENTRY_LEN[scope]
    entries = [table[i * size:(i + 1) * size] for i in range(count)]
    plain, sivs = b"", []
    for i, piece in enumerate(pieces_of(data, log2)):
        last = i == count - 1
        if mode == AUTHENTICATED:
            plain += piece
            continue
        siv = record[128:160] if scope == SHARD else entries[i][:32]
        sivs.append(siv)
        trailer = trailer_of(i, len(piece), last)
        opened = cipher(suite, keyed(derive.derive(key, "segment-key"), ctx + siv + trailer))
        try:
            plain += opened.decrypt(nonce_of(i, last), piece + entries[i][-16:], None)
        except Exception as bad:
            raise Refused("segment-mismatch", i) from bad
    values, digest = hashes_of(plain, log2)
    if scope == SHARD:
        if keyed(derive.derive(key, "siv"), ctx + digest) != record[128:160]:
            raise Refused("digest-mismatch", None)
        return
    for i, (piece, value) in enumerate(zip(pieces_of(plain, log2), values)):
        coded = ctx + value + trailer_of(i, len(piece), i == count - 1)
        purpose, code = ("attest", entries[i]) if mode == AUTHENTICATED else ("siv", sivs[i])
        if keyed(derive.derive(key, purpose), coded) != code:
            raise Refused("segment-mismatch", i)


def answer(case):
    """The code of the refusal and what it names; `None` twice if nothing is refused."""
    key, expected = bytes.fromhex(case["key"]), case["expected"]
    try:
        if "table" in case:
            record = expand(case["record"])
            kind, _, _, count = open_record(key, record, expected)
            check_table(key, record, kind, count, expand(case["table"]))
            return None, None
        image = expand(case["image"])
        fields = open_record(key, image, expected)
        kind, _, length, count = fields
        end = 256 + count * ENTRY_LEN[kind[1]]
        start = -(-end // 4096) * 4096
        if len(image) != start + length:
            raise Refused("wrong-length", None)
        rest = image[end:start].lstrip(b"\0")
        if rest:
            raise Refused("padding", start - len(rest))
        record, table = image[:256], image[256:end]
        ctx = check_table(key, record, kind, count, table)
        open_data(key, record, fields, table, ctx, image[start:])
    except Refused as refused:
        return refused.args
    return None, None


# The cases ---------------------------------------------------------------------------------------

SHARD_AES, SEGMENT_AES = (ENCRYPTED, SHARD, AES), (ENCRYPTED, SEGMENT, AES)
SEGMENT_CHACHA, PLAIN = (ENCRYPTED, SEGMENT, CHACHA), (AUTHENTICATED, NONE, NONE)
SHORT, LONG = content(40), content(4096 + 9)
# Segments that are equal but for their place.
TWICE = bytes(8192)
OTHER = FIRST._replace(key=bytes(range(0x40, 0x60)))


def image(record, table, data):
    head = record + table
    return head + bytes(-len(head) % 4096) + data


def signed(record, *changes):
    """Alters a record, and signs it again."""
    record = bytearray(record)
    for at, new in changes:
        record[at:at + len(new)] = new
    code = hmac.new(derive.derive(FIRST.key, "header-mac"), bytes(record[:224]), hashlib.sha256)
    return bytes(record[:224]) + code.digest()


def flipped(data, at, bits=1):
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1:]


def everything(**but):
    """The expectation of a caller who knows all that the first identity has."""
    expected = {
        "model_id": FIRST.model_id,
        "context": FIRST.context.hex(),
        "metadata": FIRST.metadata.hex(),
        "shard_index": FIRST.shard_index,
        "revision": FIRST.revision,
        "protection": "encrypted",
    }
    return {**expected, **but}


def case(name, sealed, code, names=None, expected=None, key=FIRST.key):
    vector = {"name": name, "key": key.hex(), "expected": expected or everything()}
    if isinstance(sealed, dict):
        vector.update(sealed)
    else:
        vector["image"] = packed(sealed if isinstance(sealed, bytes) else image(*sealed))
    vector["refused"], vector["names"] = code, names
    found = answer(vector)
    assert found == (code, names), f"{name}: {found}"
    return vector


def record_cases():
    record, table, data = seal(FIRST, SHARD_AES, SHORT, 12)
    whole = image(record, table, data)
    yield case("an empty file", b"", "wrong-length")
    yield case("a record without its last byte", whole[:255], "wrong-length")
    for at in (0, 6, 7):
        yield case(f"a bit of byte {at}: the magic", flipped(whole, at), "not-a-seal")
    for at, bits in ((8, 3), (9, 1)):
        yield case(f"a bit of byte {at}: another version", flipped(whole, at, bits), "unsupported-version")
    for profile in (0, 2):
        sealed = image(signed(record, (13, bytes([profile]))), table, data)
        yield case(f"hash profile {profile}, signed", sealed, "unsupported-hash")
    yield case("another key", whole, "wrong-key", key=OTHER.key)
    renamed = record[:48] + derive.derive(OTHER.key, "key-id")[:16] + record[64:]
    yield case("the id of another key", image(renamed, table, data), "record-mismatch", key=OTHER.key)
    for at in (10, 11, 12, 14, 15, 16, 24, 32, 40, 64, 96, 128, 160, 192, 224, 255):
        yield case(f"a bit of byte {at}", flipped(whole, at), "record-mismatch")


def field_cases():
    record, table, data = seal(FIRST, SHARD_AES, SHORT, 12)
    by_segment = seal(FIRST, SEGMENT_AES, SHORT, 12)
    plain = seal(FIRST, PLAIN, SHORT, 12)
    combination = "combination of mode, scope and cipher"
    for triple in ((0, 0, 0), (1, 0, 1), (1, 2, 0), (1, 3, 1), (1, 2, 3), (2, 0, 1), (2, 2, 1), (3, 2, 1)):
        sealed = image(signed(record, (10, bytes(triple))), table, data)
        yield case(f"mode, scope and cipher {triple}, signed", sealed, "malformed-record", combination)
    for name, at, new, field in [
        ("a flag", 15, b"\x80", "flag"),
        ("the first reserved byte", 192, b"\1", "reserved byte"),
        ("the last reserved byte", 223, b"\1", "reserved byte"),
        ("segments of 2 KiB", 14, b"\x0b", "segment size"),
        ("segments of 32 MiB", 14, b"\x19", "segment size"),
        ("a length beyond 2^48", 16, le64((1 << 48) + 1), "plaintext length"),
        ("no segment", 24, le64(0), "segment count"),
        ("a segment too many", 24, le64(2), "segment count"),
        ("2^64 - 1 segments", 24, le64(2**64 - 1), "segment count"),
    ]:
        sealed = image(signed(record, (at, new)), table, data)
        yield case(f"{name}, signed", sealed, "malformed-record", field)
    for name, sealed in (("Segment", by_segment), ("none", plain)):
        altered = image(signed(sealed[0], (128, b"\1")), *sealed[1:])
        yield case(f"a synthetic IV in scope {name}, signed", altered, "malformed-record",
                   "synthetic IV where there is none", everything(protection="any"))
    for length, log2 in (((1 << 36) + 1, 12), ((1 << 42) + 1, 18)):
        count = -(-length >> log2)
        altered = signed(record, (14, bytes([log2])), (16, le64(length)), (24, le64(count)))
        yield case(f"{length} bytes in {count} segments, signed", altered, "malformed-record",
                   "segment count")


def context_cases():
    sealed = seal(FIRST, SHARD_AES, SHORT, 12)
    for name, field, but in [
        ("another model", "model id or context", {"model_id": "vector-model a"}),
        ("the model id in its decomposed form", "model id or context", {"model_id": "vector-model a\u0308"}),
        ("another context", "model id or context", {"context": b"tenant 8".hex()}),
        ("a context that lost a byte to the model id", "model id or context",
         {"model_id": FIRST.model_id + "t", "context": b"enant 7".hex()}),
        ("other metadata", "metadata", {"metadata": b"f16 [3, 5]".hex()}),
        ("no metadata", "metadata", {"metadata": ""}),
        ("another shard index", "shard index", {"shard_index": 0}),
        ("another revision", "revision", {"revision": 41}),
        ("another scope", "scope of the synthetic IV", {"scope": "segment"}),
        ("another cipher", "cipher", {"suite": "chacha20-poly1305"}),
    ]:
        yield case(f"{name} is expected", sealed, "context-mismatch", field, everything(**but))
    without = everything()
    del without["context"]
    yield case("no context is expected", sealed, "context-mismatch", "model id or context", without)
    yield case("plaintext is expected", sealed, "protection-mismatch", None,
               everything(protection="authenticated"))
    yield case("ciphertext is expected of plaintext", seal(FIRST, PLAIN, SHORT, 12), "protection-mismatch")
    yield case("content beyond the caller's limit", sealed, "too-long", None, everything(max_len=39))
    # Two faults: the earlier check answers.
    yield case("another model and another protection", sealed, "context-mismatch", "model id or context",
               everything(model_id="m", protection="authenticated"))
    yield case("another protection and another cipher", sealed, "protection-mismatch", None,
               everything(protection="authenticated", suite="chacha20-poly1305"))
    yield case("another cipher and too long", sealed, "context-mismatch", "cipher",
               everything(suite="chacha20-poly1305", max_len=39))


def table_cases():
    record, table, data = seal(FIRST, SEGMENT_AES, LONG, 12)
    short = seal(FIRST, SHARD_AES, SHORT, 12)
    whole = image(*short)
    yield case("an image without its last byte", whole[:-1], "wrong-length")
    yield case("an image with a byte behind it", whole + b"\0", "wrong-length")
    for at in (272, 4095):
        yield case(f"padding that is not zero at byte {at}", flipped(whole, at), "padding", at)
    yield case("an altered padding and an altered table", flipped(flipped(whole, 300), 256), "padding", 300)
    yield case("the table's first bit", (record, flipped(table, 0), data), "table-mismatch")
    yield case("the table's last bit", (record, flipped(table, 95, 128), data), "table-mismatch")
    yield case("two entries exchanged", (record, table[48:] + table[:48], data), "table-mismatch")
    older = seal(FIRST._replace(revision=41), SEGMENT_AES, LONG, 12)
    yield case("the table of another revision", (record, older[1], data), "table-mismatch")
    yield case("a table without its last entry", {"record": [record.hex()], "table": [table[:48].hex()]},
               "wrong-length")
    # As many segments as the format takes; the table is given as a run of zeros.
    count = 1 << 24
    identity = FIRST._replace(revision=24)
    bound = derive.bound_bytes(identity, SHARD_AES, 1 << 36, 12)
    most = [finish(FIRST.key, bound, bytes(32), bytes(16 * count)).hex()]
    expected = everything(revision=24)
    yield case("nothing: 2^24 segments are allowed", {"record": most, "table": [zeros(16 * count)]},
               None, None, expected)
    altered = [zeros(16 * count - 1), "01"]
    yield case("the last bit of 2^24 entries", {"record": most, "table": altered},
               "table-mismatch", None, expected)


def data_cases():
    for name, kind in (("Shard", SHARD_AES), ("Segment", SEGMENT_CHACHA), ("none", PLAIN)):
        expected = everything(protection="any")
        record, table, data = seal(FIRST, kind, LONG, 12)
        for at in (0, 4104):
            yield case(f"scope {name}: a bit of byte {at} of the data",
                       (record, table, flipped(data, at)), "segment-mismatch", at >> 12, expected)
    record, table, data = seal(FIRST, SEGMENT_AES, TWICE, 12)
    yield case("two segments of equal content exchanged",
               (record, table, data[4096:] + data[:4096]), "segment-mismatch", 0)
    # The holder of the key seals a second content under one SIV: every tag is good.
    values, digest = hashes_of(SHORT, 12)
    second = flipped(SHORT, 7)
    for name, kind, code, names in (
        ("Shard", SHARD_AES, "digest-mismatch", None), ("Segment", SEGMENT_AES, "segment-mismatch", 0),
    ):
        sealed = seal(FIRST, kind, second, 12, (values, digest))
        yield case(f"scope {name}: a second content under the first's synthetic IV", sealed, code, names)


def refused_all():
    makers = (record_cases, field_cases, context_cases, table_cases, data_cases)
    return {
        "format": "vram-seal 1",
        "bytes": "a list of hexadecimal texts and of runs of one byte",
        "expected": "what is absent is not compared; without a model id, context is not compared",
        "cases": [vector for maker in makers for vector in maker()],
    }
