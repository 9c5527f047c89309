"""Model weights as tensors in device memory: verified there, and watched while they are used.

>>> import vram
>>> manager = vram.Manager.host("16MiB")          # or vram.Manager.cuda()
>>> with manager.load(example) as model:          # placed, verified, all of it or nothing
...     model["embed"].shape, model["embed"].dtype
((4, 8), 'float32')

A tensor is a view of the bytes where they lie. It supports DLPack (``torch.from_dlpack``,
``numpy.from_dlpack``), on CUDA devices ``__cuda_array_interface__``, and on host devices the buffer
protocol. As long as any view lives, its bytes are neither freed nor moved.
"""

import atexit as _atexit
import weakref as _weakref

from . import errors
from ._vram import (
    Event,
    EventIterator,
    Manager,
    Model,
    Tensor,
    Verdict,
    __version__,
    ending as _ending,
    verify_ticket,
)
from .errors import (
    Cancelled,
    Closed,
    ConfigError,
    DeviceError,
    Error,
    ForkError,
    InsufficientVram,
    IntegrityError,
    InUse,
    KeyRefused,
    NoGpu,
    SourceChanged,
    SourceError,
    SourceMissing,
    StateError,
    TicketError,
)

__all__ = [
    "Cancelled",
    "Closed",
    "ConfigError",
    "DeviceError",
    "Error",
    "Event",
    "EventIterator",
    "ForkError",
    "InUse",
    "InsufficientVram",
    "IntegrityError",
    "KeyRefused",
    "Manager",
    "Model",
    "NoGpu",
    "SourceChanged",
    "SourceError",
    "SourceMissing",
    "StateError",
    "Tensor",
    "TicketError",
    "Verdict",
    "__version__",
    "errors",
    "verify_ticket",
]

_managers: _weakref.WeakSet[Manager] = _weakref.WeakSet()


@_atexit.register
def _close_all():
    """Wipes what is not in use when the interpreter ends; what views use goes with the process."""
    # From here on, threads that come back from a call stay where they are.
    _ending()
    for manager in list(_managers):
        try:
            manager.close()
        except ForkError:
            pass
