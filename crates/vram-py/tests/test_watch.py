"""A bit that flips under a live tensor is found, told, and the tensor is in quarantine."""

import ctypes
import gc
import threading
import time

import numpy as np
import pytest

import vram


def flip(array, at=0, bit=1):
    """Changes memory behind everybody's back, as a fault would."""
    address = array.ctypes.data + at
    changed = ctypes.string_at(address, 1)[0] ^ bit
    ctypes.memmove(address, bytes([changed]), 1)


def test_a_flipped_bit_is_found_by_the_scrubber_within_its_time(manager, example):
    model = manager.load(example, name="small")
    array = np.asarray(model["blob"])
    manager.scrub(within=1.0, pass_at_least=0.2)
    events = manager.events(timeout=10)
    assert next(event for event in events if event.name == "verified")
    worst = manager.scrub_status()["worst_case"]
    assert worst is not None and worst <= 5
    flip(array, 200_000)
    begun = time.monotonic()
    names = []
    for event in events:
        names.append(event.name)
        if event.name == "quarantined":
            break
    took = time.monotonic() - begun
    assert names[-2:] == ["altered", "quarantined"], names
    assert took <= worst + 1.0, f"found after {took:.2f} s, stated {worst:.2f} s"
    assert event.model == "small" and event.tensor == "blob" and event.shard and event.seq > 0
    assert "blob" in repr(event) and event.data["event" if "event" in event.data else "kind"]

    # The view still points to the bytes; nothing new is handed out.
    tensors = [memoryview]
    for use in (
        lambda: model["blob"],
        lambda: model.read("blob"),
        lambda: model.park(),
    ):
        with pytest.raises(vram.Error):
            use()
    with pytest.raises(vram.IntegrityError) as caught:
        model["blob"]
    assert caught.value.code == "quarantined" and caught.value.kind == "fatal"
    assert caught.value.integrity and caught.value.shard and tensors
    verdict = model.verify()
    assert not verdict and not verdict.sound and {span[0] for span in verdict.altered} == {"blob"}
    assert any(start <= 200_000 < start + count for _, _, start, count in verdict.altered)
    assert "ALTERED: blob" in repr(verdict)
    # The other tensor is as it was.
    assert float(np.asarray(model["embed"])[0, 1]) == 1.0
    manager.stop_scrub()
    assert manager.scrub_status() is None
    del array
    gc.collect()
    model.free()


def test_a_tensor_that_was_taken_before_says_that_it_is_altered(manager, example):
    model = manager.load(example)
    tensor = model["embed"]
    assert tensor.sound
    flip(np.asarray(tensor), 3)
    assert tensor.sound, "no check has looked yet"
    assert not model.verify("segments")
    assert not tensor.sound
    for make in (memoryview, np.from_dlpack, lambda one: one.bytes(), lambda one: one.numpy()):
        with pytest.raises((vram.IntegrityError, BufferError, TypeError)):
            make(tensor)
    del tensor
    gc.collect()
    model.free()


def test_verdict_proof_and_age(manager, example):
    with manager.load(example) as model:
        assert model.proof and model.proof.startswith(("proof", "fingerprint"))
        for level, content in (("full", True), ("segments", False), ("fingerprint", False)):
            verdict = model.verify(level)
            assert verdict and verdict.content is content and verdict.checked_bytes == 300_128
            assert verdict.altered == [] and verdict.proof and "sound" in repr(verdict)
        assert model.verify("record").checked_bytes == 0
        young = model.age
        assert 0 <= young < 60
        time.sleep(0.05)
        assert model.age > young
        model.verify()
        assert model.age < 0.05


def test_events_come_in_order_and_end_with_the_manager(example):
    manager = vram.Manager.host("1MiB")
    events = manager.events()
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(events))
    reader.start()
    model = manager.load(example, name="small")
    model.park()
    model.wake()
    model.free()
    manager.close()
    reader.join(10)
    assert not reader.is_alive()
    assert [event.seq for event in seen] == list(range(seen[0].seq, seen[0].seq + len(seen)))
    names = [event.name for event in seen]
    for name in ("sealed", "model_admitted", "model_parked", "model_woken", "model_freed"):
        assert name in names, names
    assert seen[0].at > 1.6e9 and events.missing == 0 and {event.model for event in seen} >= {"small"}
    assert list(manager.events()) == [], "of a manager that is closed, at once"


def test_an_iterator_without_patience_ends_beside_a_scrubber(manager, example):
    with manager.load(example):
        manager.scrub(within=0.2, pass_at_least=0.01)
        events, begun = manager.events(timeout=0), time.monotonic()
        for _ in range(20):
            assert len(list(events)) < 1000
        assert time.monotonic() - begun < 0.9, "an empty queue is not waited for"
        manager.stop_scrub()


def test_an_iterator_gives_up_after_its_timeout(manager):
    begun = time.monotonic()
    assert list(manager.events(timeout=0.2)) == []
    assert 0.15 < time.monotonic() - begun < 3


def test_an_iterator_that_is_not_read_counts_what_it_missed(manager, example):
    events = manager.events(timeout=1.0)
    model = manager.load(example)
    for _ in range(4200):
        model.verify("record")
        model.verify("fingerprint")
    next(events)
    assert events.missing > 0
    model.free()


def test_metrics_and_snapshots(manager, example):
    with manager.load(example, name="small") as model:
        view = model["blob"]
        metrics = manager.metrics()
        assert any(call["call"] == "admit" for call in metrics["calls"]), metrics["calls"][:2]
        assert 'vram_calls_total{call="lease"} 1' in manager.prometheus()
        assert "small" in str(manager.snapshot())
        used, free = manager.memory()
        assert used >= 300_128 and used + free == 64 << 20
        assert manager.devices == ["host:0"] and "host:0" in repr(manager)
        del view
