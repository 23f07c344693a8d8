"""The program that runs inside a guest: modules that are sent there as text, and how they come to life there.

One process stays in the guest for the time of a verification. It is started once, because that is most of what a
verification costs an emulated guest: a second Python is loaded to other addresses, so that all its code is translated
once more. All later tasks reach it through a pipe, which a caller opens by way of ``/proc``: no file is left behind by
a program that is killed.

A guest whose memory began as a template's has that process already: it was started before the memory was kept, with all
modules loaded, and waits at ``door``.

The modules run on what Debian's python3-minimal has (no json, no struct) and import built-in modules and each other
alone: a cold guest without hardware virtualisation takes half a second to load ``socket`` and ``subprocess``, and
nothing for ``_socket``.
"""

from __future__ import annotations

import hashlib
import marshal
from functools import cache
from pathlib import Path
from typing import Any

_FIRST = ("words", "listening", "resident")  # in the order of their imports
_LATER = "probing"  # a guest that waits for others has the time to compile it

# In the guest. A module is found under its name without the packages that it is in here.
_LOAD = """\
import sys
def load(name, text):
    module = sys.modules[name] = type(sys)(name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module
"""

ASK = ("sh", "-c", 'exec 3<"$2"; read -r task; printf "%s\\n" "$task" >"$1"; exec head -n 1 <&3', "labctl")
"""How a guest's shell hands a task, a line of standard input, to the resident; the paths of two pipes are to be added.

It starts one program, since each costs an emulated guest a tenth of a second. The answer's pipe is opened first: after
the last answer nobody is left who holds it.
"""

SHELL = Path(__file__).with_name("program.sh").read_text(encoding="utf-8")
"""The program for guests without python3."""


def resident(*task: Any) -> str:
    """The Python program, with what ``resident.reside`` is told: numbers and texts that labctl made."""
    return f"{_program()}import marshal\nresident.reside(marshal.loads({marshalled(*task)!r}), later)\n"


def marshalled(*task: Any) -> bytes:
    """A task as every Python 3 can read it."""
    return marshal.dumps(task, 2)


def standby(where: str) -> str:
    """The Python program that waits at a door, as ``resident.Files`` has it."""
    return f"{_program()}probe = later()\nresident.stand_by({where!r}, lambda: probe)\n"


@cache
def door() -> str:
    """Where in a guest this very program waits, if any; another release's waits elsewhere."""
    return f"/run/labctl-verify/{hashlib.sha256(_program().encode()).hexdigest()[:16]}"


@cache
def _program() -> str:
    loads = [f"resident = load({_name(module)!r}, {_text(module)!r})\n" for module in _FIRST]
    later = f"later = lambda: load({_name(_LATER)!r}, {_text(_LATER)!r}).probe\n"
    return "".join([_LOAD, *loads, later])


def _name(module: str) -> str:
    return f"{__name__}.{module}"


def _text(module: str) -> str:
    return Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
