"""What can go wrong, as exceptions.

Every one is a :class:`Error`: its ``code`` is stable, ``retryable`` says whether the same call can
succeed later and ``retry_after`` when, and ``kind`` is "retry", "caller" or "fatal".

>>> import vram
>>> manager = vram.Manager.host("1KiB")
>>> try:
...     manager.load(example)
... except vram.InsufficientVram as error:
...     error.code, error.retryable, error.needed > error.room
('insufficient-vram', True, True)
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
    "SourceError",
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

    ``needed``, ``room``, ``largest_hole``, ``headroom`` and ``foreign`` (what other processes hold) are
    bytes on ``gpu``; ``holders`` says who holds most; ``busy`` what cannot be evicted now; ``plan`` is
    the eviction that would make room, or None.
    """

    gpu: int
    needed: int
    room: int
    largest_hole: int
    headroom: int
    foreign: int
    holders: list[dict[str, Any]]
    busy: dict[str, Any]
    plan: dict[str, Any] | None


class InUse(Error):
    """A view, a lease or another call uses it: ``shard``, ``leases``, ``holder``."""

    shard: str
    leases: int
    holder: str | None


class IntegrityError(Error):
    """Bytes are altered: ``shard``, ``segments``. They are not handed out."""

    shard: str
    segments: Any


class DeviceError(Error):
    """A device refused a call, or is lost."""


class NoGpu(DeviceError):
    """There is no CUDA GPU; the message says why."""


class SourceError(Error, OSError):
    """A file cannot be read, is no model, or was written meanwhile."""


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
    "source-length": SourceError,
    "model-file": SourceError,
    "cancelled": Cancelled,
    "closed": Closed,
    "key": KeyRefused,
    "key-source": KeyRefused,
    "key-in-use": KeyRefused,
    "parked": StateError,
    "restoring": StateError,
    "shard-freed": StateError,
    "stale-handle": StateError,
    "encrypted": StateError,
    "ticket": TicketError,
    "forked": ForkError,
}


def _make(code, kind, message, retry_after, integrity, details):
    """The exception of an error of the native half."""
    found = IntegrityError if integrity else _CLASSES.get(code)
    if found is None:
        found = {"retry": Error, "fatal": Error}.get(kind, ConfigError)
    error = found(message)
    error.code, error.kind, error.retryable = code, kind, kind == "retry"
    error.retry_after, error.integrity = retry_after, integrity
    for name, value in details.items():
        setattr(error, name, value)
    return error
