"""torch tensors over verified weights, in place.

torch has no read-only tensors: what is written through one of these is found by the next check, as any
other alteration. Train on copies.
"""

from __future__ import annotations

import os as _os

import torch as _torch

from . import Manager, Model
from .errors import ConfigError

__all__ = ["load_file", "load_state_dict", "tensors"]


def tensors(model: Model) -> dict[str, _torch.Tensor]:
    """All tensors of a model as torch tensors in place; the weights stay as long as any of them."""
    return {name: _torch.from_dlpack(model[name]) for name in model}


def load_file(
    path, device: str | _torch.device = "cpu", *, manager: Manager | None = None, progress=None
) -> dict[str, _torch.Tensor]:
    """As ``safetensors.torch.load_file``, with the same result, placed and verified by a manager.

    The tensors lie in place: they pin their model, which is freed with the last of them. Without
    ``manager``, one is made that has room for this file and no more.
    """
    device = _torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is \"cpu\" or \"cuda\", not {str(device)!r}")
    if manager is None:
        room = _room(path)
        if device.type == "cpu":
            manager = Manager.host([room])
        else:
            index = _torch.cuda.current_device() if device.index is None else device.index
            manager = Manager.cuda([index], budget=room)
    model = manager.load(path, progress=progress)
    try:
        found = tensors(model)
    finally:
        # The views keep it.
        model.close()
    return found


def load_state_dict(
    module: _torch.nn.Module, model: Model | dict[str, _torch.Tensor], strict: bool = True
):
    """Loads a model into a module: in place where type and device are the module's, else by a copy.

    Returns what ``module.load_state_dict`` does. Parameters that lie in place do not require a
    gradient. ``model`` is a ``vram.Model``, or a dictionary such as that of :func:`load_file`.
    """
    state = model if isinstance(model, dict) else tensors(model)
    wanted = module.state_dict()
    fitted = {}
    for name, tensor in state.items():
        target = wanted.get(name)
        if target is not None and not target.is_meta:
            tensor = tensor.to(device=target.device, dtype=target.dtype)
        fitted[name] = tensor
    before = {name: one.requires_grad for name, one in module.named_parameters()}
    for one in module.parameters():
        if one.is_floating_point() or one.is_complex():
            one.requires_grad_(False)
    try:
        return module.load_state_dict(fitted, strict=strict, assign=True)
    except BaseException:
        for name, one in module.named_parameters():
            one.requires_grad_(before.get(name, False))
        raise


def _room(path) -> int:
    """Bytes that hold the tensors of the files: each is rounded up to a granule."""
    paths = [path] if isinstance(path, (str, _os.PathLike)) else list(path)
    total = 0
    for one in paths:
        if _os.path.isdir(one):
            names = (name for name in _os.listdir(one) if name.endswith(".safetensors"))
            total += sum(_room(_os.path.join(one, name)) for name in names)
        else:
            # A header names each tensor in more than 32 bytes.
            with open(one, "rb") as file:
                header = int.from_bytes(file.read(8), "little")
            total += _os.path.getsize(one) + 8 * min(header, 1 << 30) + 4096
    return total
