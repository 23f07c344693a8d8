"""The key of a class: what the secrets of all its instances are made from, in a file beside the class file.

With it the same students get the same secrets again, on another host too; so it belongs to the teacher alone.
"""

from __future__ import annotations

from pathlib import Path

from labctl.errors import UsageError
from labctl.host.files import write_atomic
from labctl.spec.classfile import ClassSpec, Seat
from labctl.spec.secrets import new_seed, seed_of

FILE_NAME = "class.key"
_LEAST = 32  # characters: what labctl makes has 64
_MOST = 4096


def path(spec: ClassSpec) -> Path:
    """Where the key of a class is."""
    return spec.file.with_name(FILE_NAME)


def read(spec: ClassSpec) -> str:
    """The key of a class, ``""`` where it has none yet. Raises UsageError for what can be no key."""
    file = path(spec)
    try:
        with file.open(encoding="utf-8") as text:
            key = text.read(_MOST).strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if len(key) < _LEAST:
        raise UsageError(
            f"{file} is no key: it has {len(key)} characters and needs {_LEAST}",
            hint="Put back the one that the class was brought up with; without the file labctl makes a new one.",
        )
    return key


def make(spec: ClassSpec) -> str:
    """The key of a class, made where it has none. Raises HostError where it cannot be kept."""
    if key := read(spec):
        return key
    key = new_seed()
    write_atomic(path(spec), f"{key}\n", mode=0o600)
    return key


def seed(key: str, seat: Seat) -> str:
    """What the secrets of a seat's instance are made from; ``""`` without a key."""
    return seed_of(key, seat.instance) if key else ""
