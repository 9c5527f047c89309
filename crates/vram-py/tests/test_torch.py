"""torch over verified weights, in place. Skipped where torch is not installed."""

import gc
import os

import numpy as np
import pytest
from conftest import WIDTH, noise, write_file

import vram

torch = pytest.importorskip("torch")
vt = pytest.importorskip("vram.torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

TYPES = ["BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64", "C64", "F8_E4M3", "F8_E5M2"]


@pytest.fixture
def typed(tmp_path):
    tensors = []
    for at, kind in enumerate(TYPES):
        for number, shape in enumerate(([], [7], [3, 5], [4, 0, 2])):
            count = int(np.prod(shape, dtype=np.int64)) * WIDTH[kind]
            data = noise(count, at * 10 + number + 1)
            data = bytes(byte & 1 for byte in data) if kind == "BOOL" else data
            tensors.append((f"{kind}.{number}", kind, shape, data))
    return write_file(tmp_path / "typed.safetensors", tensors)


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(one, other):
    assert one.dtype == other.dtype and one.shape == other.shape and one.device == other.device
    if one.numel():
        # Bits, not values: noise holds many kinds of NaN.
        assert torch.equal(raw(one), raw(other))


def test_load_file_gives_what_safetensors_gives(typed):
    mine, theirs = vt.load_file(typed), safetensors_torch.load_file(typed)
    assert list(sorted(mine)) == list(sorted(theirs))
    for name, tensor in theirs.items():
        same(mine[name], tensor)


def test_tensors_lie_in_place_and_pin_their_model(manager, example):
    model = manager.load(example)
    one, other = torch.from_dlpack(model["embed"]), torch.from_dlpack(model["embed"])
    assert one.data_ptr() == other.data_ptr() == np.asarray(model["embed"]).ctypes.data
    part = one[1:, 2:].t()
    del one, other
    with pytest.raises(vram.InUse):
        model.free()
    assert float(part[0, 0]) == 10.0
    del part
    gc.collect()
    model.free()


def test_a_tensor_of_a_dropped_manager_is_still_there(example):
    found = vt.load_file(example)
    gc.collect()
    assert found["embed"].sum().item() == sum(range(32))
    result = (found["embed"] @ found["embed"].t()).sum()
    assert result.item() == float((np.arange(32.0).reshape(4, 8) @ np.arange(32.0).reshape(4, 8).T).sum())


def test_a_copy_may_be_written(manager, example):
    with manager.load(example) as model:
        copied = torch.from_dlpack(model["embed"].__dlpack__(copy=True))
        copied += 1
        assert model.verify()
        del copied


def test_a_write_through_torch_is_found(manager, example):
    """torch has no read-only tensors."""
    model = manager.load(example)
    tensor = torch.from_dlpack(model["embed"])
    tensor[0, 0] = 7
    verdict = model.verify("segments")
    assert not verdict and verdict.altered[0][0] == "embed"
    del tensor
    gc.collect()
    model.free()


def module():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))


def test_load_state_dict_in_place(manager, tmp_path):
    source = module()
    path = tmp_path / "module.safetensors"
    safetensors_torch.save_file(source.state_dict(), path)
    model = manager.load(path)
    target = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    result = vt.load_state_dict(target, model)
    assert not result.missing_keys and not result.unexpected_keys
    places = {np.asarray(model[name]).ctypes.data for name in model}
    assert {one.data_ptr() for one in target.parameters()} == places, "no copy was made"
    assert not any(one.requires_grad for one in target.parameters())
    given = torch.randn(8, 16)
    assert torch.equal(target(given), source(given))
    with pytest.raises(vram.InUse):
        model.park()
    del target
    gc.collect()
    model.free()


def test_load_state_dict_copies_what_has_another_type(manager, tmp_path):
    source = module()
    path = tmp_path / "module.safetensors"
    safetensors_torch.save_file(source.state_dict(), path)
    with manager.load(path) as model:
        half = module().to(torch.bfloat16)
        vt.load_state_dict(half, model)
        assert all(one.dtype == torch.bfloat16 for one in half.parameters())
        for name, one in half.named_parameters():
            assert torch.equal(one, source.state_dict()[name].to(torch.bfloat16))
        with pytest.raises(RuntimeError, match="Missing key"):
            vt.load_state_dict(torch.nn.Sequential(*module(), torch.nn.Linear(4, 4)), model)
        gc.collect()


class Tied(torch.nn.Module):
    """A head that is the embedding, and another layer."""

    def __init__(self, seed, extra=False):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = torch.nn.Embedding(16, 8)
        self.head = torch.nn.Linear(8, 16, bias=False)
        self.head.weight = self.embed.weight
        self.norm = torch.nn.BatchNorm1d(8)
        if extra:
            self.extra = torch.nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.norm(self.embed(tokens)))


@pytest.mark.parametrize("names", [["embed.weight"], ["head.weight"], ["embed.weight", "head.weight"]])
def test_what_was_tied_stays_tied(manager, tmp_path, names):
    source = Tied(1)
    state = source.state_dict()
    kept = {name: one.clone() for name, one in state.items() if name in names or "norm" in name}
    path = tmp_path / "tied.safetensors"
    safetensors_torch.save_file(kept, path)
    target = Tied(2)
    with manager.load(path) as model:
        result = vt.load_state_dict(target, model, strict=False)
        assert set(result.missing_keys) == {"embed.weight", "head.weight"} - set(names)
        assert target.head.weight is target.embed.weight
        tokens = torch.arange(16)
        assert torch.equal(target.eval()(tokens), source.eval()(tokens))
        del target
        gc.collect()


def test_what_shares_a_storage_shares_it_still(manager, tmp_path):
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(16, 8)
            self.head = torch.nn.Linear(8, 16, bias=False)
            self.head.weight.data = self.embed.weight.data
            self.register_buffer("turned", self.embed.weight.data.t(), persistent=False)

    source, target = Shared(), Shared()
    path = tmp_path / "shared.safetensors"
    safetensors_torch.save_file({"embed.weight": source.embed.weight.data.clone()}, path)
    with manager.load(path) as model:
        vt.load_state_dict(target, model, strict=False)
        weights = source.embed.weight
        assert torch.equal(target.head.weight, weights) and torch.equal(target.turned, weights.t())
        assert target.head.weight.data_ptr() == target.embed.weight.data_ptr() == target.turned.data_ptr()
        del target
        gc.collect()


def test_a_forward_pass_of_a_module_in_training_alters_nothing(manager, tmp_path):
    path = tmp_path / "norm.safetensors"
    safetensors_torch.save_file(torch.nn.BatchNorm1d(8).state_dict(), path)
    target = torch.nn.BatchNorm1d(8)
    with manager.load(path) as model:
        vt.load_state_dict(target, model)
        target(torch.randn(4, 8))
        assert int(target.num_batches_tracked) == 1 and model.verify()
        del target
        gc.collect()


def test_a_manager_and_a_device_that_it_lacks(manager, example):
    assert vt.load_file(example, manager=manager)["embed"].device.type == "cpu"
    assert vt.load_file(example, device="cpu", manager=manager)["embed"].device.type == "cpu"
    with pytest.raises(vram.ConfigError, match="host:0"):
        vt.load_file(example, device="cuda:1", manager=manager)
    gc.collect()


def test_only_what_lies_in_place_loses_its_gradient(manager, tmp_path):
    path = tmp_path / "tied.safetensors"
    state = {name: one.clone() for name, one in Tied(1).state_dict().items() if name != "head.weight"}
    state["norm.weight"] = state["norm.weight"].to(torch.bfloat16)
    safetensors_torch.save_file(state, path)
    target = Tied(2, extra=True)
    with manager.load(path) as model:
        before = {name: (one, one.detach().clone()) for name, one in target.named_parameters()}
        with pytest.raises(RuntimeError, match="Missing key"):
            vt.load_state_dict(target, model)
        for name, one in target.named_parameters():
            held, values = before[name]
            assert one is held and one.requires_grad and torch.equal(one, values), "an error changes nothing"
        vt.load_state_dict(target, model, strict=False)
        found = {name: one.requires_grad for name, one in target.named_parameters()}
        assert not found.pop("embed.weight") and not found.pop("norm.bias")
        assert all(found.values()) and set(found) == {"norm.weight", "extra.weight", "extra.bias"}
        del target, one, held, before
        gc.collect()


def test_load_file_takes_what_safetensors_takes(tmp_path):
    path = write_file(tmp_path / "four.safetensors", [("w", "F4", [3, 8], noise(12))])
    mine, theirs = vt.load_file(filename=path, device=None)["w"], safetensors_torch.load_file(path)["w"]
    same(mine, theirs)
    with pytest.raises(FileNotFoundError):
        vt.load_file(tmp_path / "missing.safetensors")


def test_a_path_is_no_number_of_a_descriptor(tmp_path):
    reading, writing = os.pipe()
    for wrong in (bytes([reading]), [reading], reading, bytearray([writing])):
        with pytest.raises(TypeError):
            vt.load_file(wrong)
    os.write(writing, b"x")
    assert os.read(reading, 1) == b"x", "both are still open"
    os.close(reading)
    os.close(writing)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(vram.SourceError):
        vt.load_file(tmp_path / "pipe.safetensors")


def test_a_device_that_is_none(example):
    with pytest.raises(vram.ConfigError):
        vt.load_file(example, device="mps")
    if not torch.cuda.is_available():
        with pytest.raises((vram.NoGpu, RuntimeError)):
            vt.load_file(example, device="cuda:0")
