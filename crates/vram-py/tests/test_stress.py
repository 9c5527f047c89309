"""Threads x views x park x free: every byte that is read is the right one, or the call is refused."""

import gc
import hashlib
import random
import threading
import time

import numpy as np
import pytest
from conftest import noise, write_file

import vram

#: What another thread's call may be the reason of.
EXPECTED = (vram.InUse, vram.StateError, vram.InsufficientVram)


@pytest.fixture
def files(tmp_path):
    """Three models whose bytes say which tensor of which model they are."""
    paths = []
    for model in range(3):
        tensors = []
        for at in range(6):
            data = noise(50_000 + 10_000 * at, 10 * model + at)
            tensors.append((f"t{at}", "U8", [len(data)], data))
        paths.append((write_file(tmp_path / f"m{model}.safetensors", tensors), tensors))
    return paths


def test_threads_views_park_and_free(files, seconds):
    manager = vram.Manager.host(["8MiB", "8MiB"])
    manager.scrub(within=0.5, pass_at_least=0.01)
    until = time.monotonic() + seconds
    slots, kept, wrong, done = [None] * 3, [], [], dict.fromkeys("load view park wake move free".split(), 0)
    digests = [
        {name: hashlib.sha256(data).digest() for name, _, _, data in tensors} for _, tensors in files
    ]
    lock = threading.Lock()

    def look(of, name, array):
        if hashlib.sha256(array).digest() != digests[of][name]:
            wrong.append(f"model {of} {name}: other bytes")

    def work(seed):
        pick = random.Random(seed)
        mine = []
        while time.monotonic() < until and not wrong:
            of, name, what = pick.randrange(3), f"t{pick.randrange(6)}", pick.random()
            model = slots[of]
            try:
                if model is None:
                    model = manager.load(files[of][0], name=f"m{of}")
                    with lock:
                        taken = slots[of] is None
                        if taken:
                            slots[of] = model
                    if not taken:
                        model.close()
                    done["load"] += 1
                elif what < 0.55:
                    tensor = model[name]
                    how = pick.randrange(4)
                    view = (np.asarray, np.from_dlpack, memoryview, lambda one: one.numpy())[how](tensor)
                    look(of, name, view)
                    if pick.random() < 0.3:
                        mine.append((of, name, view))
                    if pick.random() < 0.05:
                        kept.append((of, name, view))
                    done["view"] += 1
                elif what < 0.70:
                    model.park()
                    done["park"] += 1
                elif what < 0.88:
                    model.wake(pick.choice([None, 0, 1]))
                    done["wake"] += 1
                elif what < 0.93:
                    model.migrate(pick.randrange(2))
                    done["move"] += 1
                elif what < 0.97:
                    model.free()
                    done["free"] += 1
                    slots[of] = None
                else:
                    slots[of] = None
                    model.close()
            except EXPECTED:
                if model is not None and model.state == "freed":
                    slots[of] = None
                time.sleep(0.0005)
            if mine and pick.random() < 0.5:
                look(*mine.pop(pick.randrange(len(mine))))
            if len(kept) > 20:
                look(*kept.pop(0))
            if len(mine) > 4:
                mine.clear()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
        assert not thread.is_alive(), "a call never came back"
    assert not wrong, wrong
    for of, name, view in kept:
        look(of, name, view)
    del view
    kept.clear()
    slots[:] = []
    gc.collect()
    assert not wrong, wrong
    print(done)
    assert all(done.values()), done
    left = [manager.memory(gpu)[0] for gpu in range(2)]
    assert left == [0, 0], "a model without an owner was not freed"
    report = manager.close(10)
    assert report["complete"] and report["freed"] == 0, report


def test_views_made_and_dropped_by_many_threads(manager, example, seconds):
    model = manager.load(example)
    until, want = time.monotonic() + seconds / 3, noise(300_000)
    wrong = []

    def work():
        while time.monotonic() < until:
            if bytes(np.from_dlpack(model["blob"])[::1000]) != want[::1000]:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    gc.collect()
    assert model.free() >= 300_000
