"""Lives: a view pins its lease, whatever order objects go in."""

import gc
import itertools
import threading
import weakref

import numpy as np
import pytest
from conftest import noise, write_file

import vram


def used(manager):
    gc.collect()
    return manager.memory()[0]


def test_a_view_pins_its_tensor_against_park_and_free(manager, example):
    model = manager.load(example)
    for make in (
        lambda: model["blob"],
        lambda: memoryview(model["blob"]),
        lambda: np.asarray(model["blob"])[5:7],
        lambda: np.from_dlpack(model["blob"])[::2],
        lambda: model["blob"].__dlpack__(),
        lambda: model["blob"].bytes().numpy().view("int8"),
    ):
        view = make()
        for call in (model.park, model.free):
            with pytest.raises(vram.InUse) as caught:
                call()
            assert caught.value.retryable and caught.value.leases == 1, caught.value
            assert caught.value.holder == "python"
        assert model.state == "resident"
        del view
        gc.collect()
        model.park()
        assert model.state == "parked" and manager.memory()[0] == 0
        model.wake()
    assert model.free() > 300_000 and model.state == "freed" and model.free() == 0
    with pytest.raises(vram.StateError):
        model["blob"]


def test_park_and_wake_keep_every_bit_and_move_freely(manager, example):
    with manager.load(example) as model:
        before = bytes(model["blob"])
        model.park()
        for call in (lambda: model["blob"], model.verify, lambda: model.read("blob"), model.park):
            with pytest.raises(vram.StateError) as caught:
                call()
            assert caught.value.code == "parked"
        model.wake()
        model.wake()
        assert bytes(model["blob"]) == before == noise(300_000)
        assert model.verify().content


def test_leaving_the_block_frees_with_the_last_view(manager, example):
    with manager.load(example) as model:
        array = np.asarray(model["embed"])
    with pytest.raises(vram.StateError):
        model["embed"]
    assert used(manager) > 0
    assert array.sum() == sum(range(32))
    rest = array[2:]
    del array
    assert used(manager) > 0 and rest[0, 0] == 16
    del rest
    assert used(manager) == 0


def test_objects_may_go_in_any_order(example):
    for order in itertools.permutations(range(4)):
        manager = vram.Manager.host("1MiB")
        model = manager.load(example)
        tensor = model["embed"]
        array = np.asarray(tensor)
        objects = [manager, model, tensor, array]
        alive = weakref.ref(manager)
        del manager, model, tensor, array
        for at in order:
            array = objects[3]
            if array is not None:
                assert float(array[3, 7]) == 31.0
            del array
            objects[at] = None
            gc.collect()
        assert alive() is None


def test_cycles_with_views_are_collected(manager, example):
    class Node:
        pass

    node = Node()
    node.model = manager.load(example)
    node.array = np.asarray(node.model["embed"])
    node.self = node
    del node
    assert used(manager) == 0


def test_a_manager_that_closes_leaves_what_views_use(example):
    manager = vram.Manager.host("1MiB")
    model = manager.load(example)
    array = np.asarray(model["embed"])
    report = manager.close()
    assert not report["complete"] and report["leases"] == 1 and report["freed"] == 1
    assert array.sum() == sum(range(32))
    with pytest.raises(vram.Closed):
        manager.load(example)
    del array, model
    gc.collect()
    assert manager.close()["complete"]


def test_what_views_kept_of_a_closed_manager_goes_with_them(example):
    manager = vram.Manager.host("1MiB")
    model = manager.load(example)
    view = memoryview(model["embed"])
    assert not manager.close()["complete"]
    assert view[3, 7] == 31.0 and manager.memory()[0] > 0
    del view
    gc.collect()
    assert manager.memory()[0] == 0 and model.state == "freed"


def test_an_evicted_model_says_so(tmp_path):
    manager = vram.Manager.host("1MiB", evict=True)
    path = write_file(tmp_path / "half.safetensors", [("w", "U8", [600 << 10], bytes(600 << 10))])
    first = manager.load(path, name="first", on_eviction="free")
    with manager.load(path, name="second"):
        assert first.state == "freed"


def test_the_end_of_a_block_never_refuses(tmp_path):
    """Another thread parks or wakes the model meanwhile: it goes when that is done."""
    size = 24 << 20
    path = write_file(tmp_path / "large.safetensors", [("w", "U8", [size], bytes(size))])
    manager = vram.Manager.host("64MiB")
    busy = 0
    for _ in range(12):
        with pytest.raises(KeyError, match="mine"):
            with manager.load(path) as model:

                def work():
                    try:
                        model.park()
                        model.wake()
                    except vram.StateError:
                        pass

                thread = threading.Thread(target=work)
                thread.start()
                while model.state not in ("parking", "waking") and thread.is_alive():
                    pass
                busy += thread.is_alive()
                raise KeyError("mine")
        thread.join()
        assert model.state == "freed" and manager.memory()[0] == 0
    assert busy


def test_capsules_that_nobody_takes_end(manager, example):
    with manager.load(example) as model:
        for _ in range(100):
            model["embed"].__dlpack__()
            model["embed"].__dlpack__(max_version=(1, 0), copy=True)
        model.park()
        model.wake()


def test_tensors_that_outlive_a_parked_model_see_their_old_bytes(manager, example):
    """Parking is refused while a view lives, so no view ever looks at another tensor's bytes."""
    model = manager.load(example, name="first")
    view = np.asarray(model["blob"])
    before = view.tobytes()
    with pytest.raises(vram.InUse):
        model.park()
    second = manager.load(example, name="second")
    second.free()
    assert view.tobytes() == before
    del view
    model.free()


def test_migrate(example):
    with vram.Manager.host(["1MiB", "1MiB"]) as manager:
        with manager.load(example, gpu=0) as model:
            view = memoryview(model["blob"])
            with pytest.raises(vram.InUse):
                model.migrate(1)
            view.release()
            del view
            gc.collect()
            model.migrate(1)
            assert manager.memory(0)[0] == 0 and manager.memory(1)[0] > 0
            assert bytes(model["blob"]) == noise(300_000)
