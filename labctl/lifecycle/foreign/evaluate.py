"""A Vagrantfile read by Vagrant itself.

It is a program in Ruby: whoever reads it runs it. So it runs with a Vagrant home of its own, a time limit, and, where
the host has namespaces, without a network, on a read-only file system and out of reach of the host's daemons.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.errors import HostError, LabctlError, UsageError
from labctl.host.runner import Argument, Runner
from labctl.lifecycle.foreign import untyped

_HERE = Path(__file__).parent
_PROGRAM = _HERE / "confined_program.py"
_DRIVER = _HERE / "vagrant_dump.rb"
_SECONDS = 120.0
_RESULT = "result.json"
# Where Debian's Vagrant keeps its list of plugins. The first Vagrant of all rewrites the empty one that the package
# brings, and gives up where it cannot.
_PLUGINS = "/usr/share/vagrant-plugins"
_NETWORK = ("--net",)
_EVERYTHING = ("--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
_USER = ("--user", "--map-root-user")


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a Vagrantfile could not do: reach a network, or change a file."""

    network: bool
    files: bool

    def __str__(self) -> str:
        match self.network, self.files:
            case True, True:
                return "without a network and on a read-only file system"
            case True, False:
                return "without a network, but with your rights on this host's files"
        return "with your rights, since this host has no namespaces to confine it in"


def evaluate(file: Path, *, seconds: float = _SECONDS) -> tuple[Mapping[str, Any], Confinement]:
    """What a Vagrantfile says, as ``vagrant_dump.rb`` writes it, and how its code was confined.

    Runs the code in it. Raises HostError where Vagrant is missing, UsageError where the file cannot be loaded, in time
    or at all.
    """
    vagrant = shutil.which("vagrant")
    if vagrant is None:
        raise HostError(
            "Vagrant is not installed", hint="apt install vagrant; only Vagrant itself can read a Vagrantfile."
        )
    runner = Runner()
    space = _namespaces(runner)
    file = file.resolve()
    with tempfile.TemporaryDirectory(prefix="labctl-import-") as made:
        folder = os.path.realpath(made)
        task = {
            "argv": [vagrant, "labctl-describe", f"{folder}/{_RESULT}", f"{folder}/home", str(file.parent), file.name],
            "environment": _environment(folder),
            "folder": folder,
            "files": {"driver/Vagrantfile": _DRIVER.read_text(encoding="utf-8"), "home/.keep": ""},
            "result": _RESULT,
            "source": str(file.parent),
            "scratch": [_PLUGINS],
            "seconds": seconds,
            "private": "--mount" in space,
        }
        start = ["unshare", *space, "--"] if space else []
        argv: list[Argument] = [*start, sys.executable, "-I", "-S", _PROGRAM]
        done = runner.run(argv, stdin=json.dumps(task).encode(), timeout=seconds + 30, check=False)
    try:
        answer = untyped.mapping(json.loads(done.stdout))
    except ValueError:
        raise LabctlError("reading the Vagrantfile failed", details=done.last_words()) from None
    return _machines(file, answer, seconds), Confinement(bool(space), untyped.truth(answer.get("readonly")))


def _namespaces(runner: Runner) -> Sequence[str]:
    """The strongest options of unshare that this host allows, or none."""
    if shutil.which("unshare") is None:
        return ()
    for options in ((*_USER, *_EVERYTHING), _EVERYTHING, (*_USER, *_NETWORK), _NETWORK):
        if runner.run(["unshare", *options, "--", "true"], timeout=10, check=False).code == 0:
            return options
    return ()


def _environment(folder: str) -> dict[str, str | None]:
    """What Vagrant is told besides the user's own environment, from which a Vagrantfile may take its settings."""
    return {
        **{name: None for name in os.environ if name.startswith("VAGRANT_")},
        "VAGRANT_HOME": f"{folder}/home",
        "VAGRANT_CWD": f"{folder}/driver",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_NO_COLOR": "1",
        "VAGRANT_EXPERIMENTAL": "disks",  # else Vagrant 2 forgets config.vm.disk while it reads
        "TMPDIR": folder,
    }


def _machines(file: Path, answer: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
    if answer.get("code", 0) is None:
        raise UsageError(
            f"{file} did not end within {seconds:g} s", hint="It may wait for input or for a network, and has neither."
        )
    try:
        found = untyped.mapping(json.loads(answer.get("result") or "null"))
    except (ValueError, RecursionError):
        found = {}
    said = untyped.text(answer.get("said")).strip()
    if error := untyped.text(found.get("error")):
        raise UsageError(f"Vagrant cannot load {file}", details=_short(error), hint="Does `vagrant validate` take it?")
    if not untyped.items(found.get("machines")):
        raise UsageError(f"Vagrant found no machine in {file}", details=_short(said))
    return untyped.mapping(_clean(found))


def _short(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()][-12:]
    return "\n".join("".join(char if char.isprintable() else "\ufffd" for char in line)[:300] for line in lines)


def _clean(value: Any) -> Any:
    """A value without halves of characters, which JSON can hold and no file can."""
    if isinstance(value, dict):
        return {_clean(key): _clean(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_clean(below) for below in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
