"""What the tests share: small files, and a manager that must be empty at the end."""

import gc
import json
import os
import struct
import sys

import pytest

import vram

#: Element types of safetensors: bytes of an element.
WIDTH = {
    "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8,
    "F16": 2, "BF16": 2, "F32": 4, "F64": 8, "C64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--seconds", type=float, default=3.0, help="how long each stress test runs")


@pytest.fixture
def seconds(request):
    return request.config.getoption("--seconds")


def write_file(path, tensors, metadata=None):
    """A safetensors file of (name, type, shape, bytes), written here and not by a library."""
    header, blob = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, kind, shape, data in tensors:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)
    return path


def noise(count, seed=1):
    """Bytes that look random, the same every time."""
    state, out = seed * 0x9E3779B97F4A7C15 + 1, bytearray()
    while len(out) < count:
        state = (state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
        out += (state >> 24).to_bytes(5, "little")
    return bytes(out[:count])


@pytest.fixture
def example(tmp_path):
    """Two tensors: 4 x 8 floats, and 300,000 bytes."""
    floats = struct.pack("<32f", *range(32))
    return write_file(
        tmp_path / "example.safetensors",
        [("embed", "F32", [4, 8], floats), ("blob", "U8", [300_000], noise(300_000))],
        {"format": "np"},
    )


@pytest.fixture
def manager():
    """64 MiB of host memory. Whatever a test does, all of it comes back when its objects are gone."""
    manager = vram.Manager.host(["64MiB"])
    yield manager
    gc.collect()
    report = manager.close(5.0)
    assert report["complete"], report


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace, example):
    doctest_namespace["example"] = os.fspath(example)


def in_new_process(code, *args, timeout=60, env=None):
    """Runs code in an interpreter of its own: its exit status and what it printed."""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr
