"""torch tensors over verified weights, in place.

torch has no read-only tensors: what is written through one of these is found by the next check, as any
other alteration. Train on copies.
"""

from __future__ import annotations

import torch as _torch
from torch.nn.parameter import is_lazy as _is_lazy

from . import Manager, Model
from ._vram import room_for as _room_for
from .errors import ConfigError

__all__ = ["load_file", "load_state_dict", "tensors"]


def tensors(model: Model) -> dict[str, _torch.Tensor]:
    """All tensors of a model as torch tensors in place; the weights stay as long as any of them."""
    return {name: _tensor(model[name]) for name in model}


def _tensor(found):
    # torch names pairs of float4, two of them in a byte, as safetensors does.
    pairs = getattr(_torch, "float4_e2m1fn_x2", None) if found.dtype == "float4_e2m1fn" else None
    if pairs is None or not found.shape or found.shape[-1] % 2:
        return _torch.from_dlpack(found)
    *outer, last = found.shape
    return _torch.from_dlpack(found.bytes()).view(pairs).reshape(*outer, last // 2)


#: What the kernels of a card take besides the weights: less than 2 MiB.
_KERNELS = 4 << 20


def load_file(
    filename,
    device: str | int | _torch.device | None = None,
    *,
    manager: Manager | None = None,
    progress=None,
) -> dict[str, _torch.Tensor]:
    """As ``safetensors.torch.load_file``, with the same result, placed and verified by a manager.

    The tensors lie in place: they pin their model, which is freed with the last of them. Without
    ``manager``, one is made that has room for this file and no more, on "cpu" if no device is named. With
    one, ``device`` is one of the manager's; it need not be named.
    """
    device = None if device is None else _torch.device(device)
    if device is not None and device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is \"cpu\" or \"cuda\", not {str(device)!r}")
    gpu = None
    if manager is None:
        manager = _manager_for(filename, device)
    elif device is not None:
        gpu = _gpu_of(manager, device)
    model = manager.load(filename, gpu=gpu, progress=progress)
    try:
        found = tensors(model)
    finally:
        # The views keep it.
        model.close()
    return found


def _manager_for(filename, device):
    room = max(_room_for(filename), 4096)
    if device is None or device.type == "cpu":
        return Manager.host([room])
    index = _torch.cuda.current_device() if device.index is None else device.index
    return Manager.cuda([index], budget=room + _KERNELS)


def _gpu_of(manager, device):
    """The number that a device has in a manager."""
    kind = "host" if device.type == "cpu" else "cuda"
    of_kind = [name for name in manager.devices if name.startswith(kind)]
    if device.index is not None and kind == "cuda":
        of_kind = [name for name in of_kind if name == f"cuda:{device.index}"]
    if not of_kind:
        raise ConfigError(f"the manager has no {device}: it has {', '.join(manager.devices)}")
    return manager.devices.index(of_kind[0]) if len(of_kind) == 1 else None


def load_state_dict(
    module: _torch.nn.Module, model: Model | dict[str, _torch.Tensor], strict: bool = True
):
    """Loads a model into a module: parameters in place where type and device are the module's, else by a
    copy. Buffers are copied: modules write to them, such as the averages of a batch norm.

    Returns what ``module.load_state_dict`` does, and takes ``strict`` as it does. What was tied stays
    tied: parameters that are one, or lie in one storage, get the weights of whichever of their names the
    model has. Parameters that lie in place do not require a gradient any more; all others keep what they
    had. An error changes nothing of the module. ``model`` is a ``vram.Model``, or a dictionary such as
    that of :func:`load_file`.
    """
    state = model if isinstance(model, dict) else tensors(model)
    wanted, before = module.state_dict(), _slots(module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    fitted, in_place = {}, set()
    for name, tensor in state.items():
        target = wanted.get(name)
        if target is not None and not target.is_meta:
            fit = tensor.to(device=target.device, dtype=target.dtype)
        else:
            fit = tensor
        if fit is tensor and name not in parameters:
            fit = tensor.clone()
        fitted[name] = fit
        if fit is tensor and fit.numel():
            in_place.add(fit.data_ptr())
    try:
        result = module.load_state_dict(fitted, strict=strict, assign=True)
    except BaseException:
        for slots, key, held in before.values():
            slots[key] = held
        raise
    one, whole = {}, {}
    for name, (slots, key, held) in before.items():
        if name in fitted:
            one[id(held)] = slots[key]
            if not _is_lazy(held) and held.is_contiguous() and held.numel():
                whole[_storage(held)] = (held, slots[key])
    for slots, key, held in before.values():
        if id(held) in one:
            slots[key] = one[id(held)]
        elif not _is_lazy(held) and _storage(held) in whole:
            # Another view of the same storage.
            base, now = whole[_storage(held)]
            start = now.storage_offset() + held.storage_offset() - base.storage_offset()
            if held.dtype == now.dtype and base.shape == now.shape and now.is_contiguous():
                held.data = now.detach().as_strided(held.shape, held.stride(), start)
    for _, _, held in _slots(module).values():
        if not _is_lazy(held) and held.data_ptr() in in_place:
            held.requires_grad_(False)
    return result


def _storage(tensor):
    return None if tensor.is_meta else tensor.untyped_storage().data_ptr()


def _slots(module):
    """Where a module keeps its parameters and buffers, each under all its names: the dictionary, the
    name there, and what it holds."""
    found = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for slots in (owner._parameters, owner._buffers):
            for key, held in slots.items():
                if held is not None:
                    found[f"{prefix}.{key}" if prefix else key] = (slots, key, held)
    return found
