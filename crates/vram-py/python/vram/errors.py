"""What can go wrong, as exceptions.

Every one is a :class:`Error`: its ``code`` is stable, ``retryable`` says whether the same call can
succeed later and ``retry_after`` when, and ``kind`` is "retry", "caller" or "fatal".

>>> import vram
>>> manager = vram.Manager.host("1KiB")
>>> try:
...     manager.load(example)
... except vram.InsufficientVram as error:
...     error.code, error.retryable, error.needed > error.room
('insufficient-vram', False, True)
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "Cancelled",
    "Closed",
    "ConfigError",
    "DeviceError",
    "Error",
    "ForkError",
    "InUse",
    "InsufficientVram",
    "IntegrityError",
    "KeyRefused",
    "NoGpu",
    "SourceChanged",
    "SourceError",
    "SourceMissing",
    "StateError",
    "TicketError",
]


class Error(Exception):
    """Any error of this package."""

    #: The stable name of the error, such as "insufficient-vram".
    code: str = "error"
    #: "retry": the same call can succeed later; "caller": change the call; "fatal": tell an operator.
    kind: str = "caller"
    #: Whether the same call can succeed later.
    retryable: bool = False
    #: When to try again, in seconds; None if that does not help.
    retry_after: float | None = None
    #: Whether bytes are not what they were.
    integrity: bool = False


class InsufficientVram(Error, MemoryError):
    """There is no room. The attributes say what would help.

    ``needed``, ``room``, ``largest_hole``, ``headroom``, ``foreign`` (what other processes hold) and
    ``most`` (what there could ever be: if ``needed`` is more, the error is not retryable) are bytes on
    ``gpu``; ``holders`` says who holds most; ``busy`` what cannot be evicted now; ``plan`` is
    the eviction that would make room, or None.
    """

    gpu: int
    needed: int
    room: int
    largest_hole: int
    headroom: int
    most: int
    foreign: int
    holders: list[dict[str, Any]]
    busy: dict[str, Any]
    plan: dict[str, Any] | None


class InUse(Error):
    """A view, a lease or another call uses it: ``tensor``, ``shard``, ``leases``, ``holder``."""

    tensor: str | None = None
    shard: str | None = None
    leases: int = 0
    holder: str | None = None


class IntegrityError(Error):
    """Bytes are altered: ``tensor``, ``shard``, ``segments``. They are not handed out."""

    tensor: str | None = None
    shard: str | None = None
    segments: Any = None


class DeviceError(Error):
    """A device refused a call, or is lost."""


class NoGpu(DeviceError):
    """There is no CUDA GPU; the message says why."""


class SourceError(Error, OSError):
    """A file cannot be read, is no model, or was written meanwhile."""


class SourceChanged(SourceError, IntegrityError):
    """A file was written while it was read, so that its bytes are of no one state. Nothing of it is
    resident: load it again when nothing writes it."""


class SourceMissing(SourceError, FileNotFoundError):
    """There is no such file."""


class Cancelled(Error):
    """The call was ended early; it gave back what it had taken."""


class Closed(Error):
    """The manager was closed."""


class KeyRefused(Error):
    """A key is missing, wrong, or readable by others."""


class StateError(Error):
    """The model is parked or freed."""


class TicketError(Error):
    """A ticket is not genuine, or states something else than expected."""


class ConfigError(Error, ValueError):
    """An argument means nothing here."""


class ForkError(Error, RuntimeError):
    """This process was forked from the one that made the object, which it cannot use."""


#: By code; the last are words of the native half, which makes the exceptions.
_CLASSES = {
    "insufficient-vram": InsufficientVram,
    "in-use": InUse,
    "gpu-in-use": InUse,
    "timed-out": InUse,
    "device": DeviceError,
    "device-lost": DeviceError,
    "not-returned": DeviceError,
    "no-gpu": NoGpu,
    "io": SourceError,
    "source": SourceError,
    "source-changed": SourceError,
    "source-length": SourceError,
    "model-file": SourceError,
    "cancelled": Cancelled,
    "closed": Closed,
    "key": KeyRefused,
    "key-source": KeyRefused,
    "key-in-use": KeyRefused,
    "parked": StateError,
    "resident": StateError,
    "restoring": StateError,
    "shard-freed": StateError,
    "stale-handle": StateError,
    "encrypted": StateError,
    "ticket": TicketError,
    "forked": ForkError,
    "changed": SourceChanged,
    "missing": SourceMissing,
    "integrity": IntegrityError,
    "config": ConfigError,
    "error": Error,
}
