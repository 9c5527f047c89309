"""CUDA devices: on a GPU, or on a simulated driver, whose memory no kernel of Python can read.

`VRAM_CUDA_DRIVER` names the simulated driver (`cargo build -p cuda-sim-so`); without it, and without a
GPU, these tests are skipped.
"""

import os

import pytest
from conftest import in_new_process

SIMULATED = os.environ.get("VRAM_CUDA_DRIVER")
needs_driver = pytest.mark.skipif(not SIMULATED, reason="no simulated driver: VRAM_CUDA_DRIVER is not set")

CODE = """
import gc, sys, vram
manager = vram.Manager.cuda(budget="16MiB")
assert manager.devices == ["cuda:0", "cuda:1"], manager.devices
model = manager.load(sys.argv[1], gpu=1)
tensor = model["embed"]
assert tensor.device == "cuda:1" and tensor.__dlpack_device__() == (2, 1)
interface = tensor.__cuda_array_interface__
assert interface["shape"] == (4, 8) and interface["typestr"] == "<f4" and interface["strides"] is None
address, read_only = interface["data"]
assert read_only and address % 256 == 0 and address > 0 and interface["version"] == 3
for stream in (None, 1, 2, -1):
    assert "dltensor" in repr(tensor.__dlpack__(stream=stream, max_version=(1, 0)))
try:
    memoryview(tensor)
except BufferError as error:
    assert "DLPack" in str(error)
else:
    raise AssertionError("a buffer of device memory")
for refused in (dict(copy=True), dict(dl_device=(1, 0))):
    try:
        tensor.__dlpack__(**refused)
    except BufferError:
        pass
    else:
        raise AssertionError(refused)
try:
    model.park()
except vram.InUse:
    pass
else:
    raise AssertionError("parked under a view")
verdict = model.verify()
assert verdict and verdict.content
assert model.read("embed")[:8] == bytes(4) + b"\\0\\0\\x80?"
del tensor
gc.collect()
model.park(); model.wake(gpu=0)
assert model["embed"].device == "cuda:0" and model.verify()
try:
    vram.Manager.cuda([7])
except vram.ConfigError as error:
    assert error.code == "unknown-gpu"
one = vram.Manager.cuda([1], budget=0.1)
assert one.devices == ["cuda:1"]
with one.load(sys.argv[1]) as second:
    assert second["embed"].device == "cuda:1", second["embed"].device
print(model.proof)
try:
    import torch, vram.torch as vt
except ImportError:
    sys.exit()
# torch itself knows no simulated card.
made = vt._manager_for(sys.argv[1], torch.device("cuda:1"))
assert made.devices == ["cuda:1"] and made.load(sys.argv[1]).verify()
"""


@needs_driver
def test_tensors_of_a_simulated_card(example):
    env = {"CUDA_SIM_DEVICES": "capacity=64MiB;capacity=64MiB"}
    status, out, err = in_new_process(CODE, example, env=env)
    assert status == 0, err
    assert "proof" in out or "fingerprint" in out
