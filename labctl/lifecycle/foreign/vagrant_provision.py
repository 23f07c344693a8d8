"""Provisioners of a Vagrantfile as provisioning steps, and the files that they need."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.errors import LabctlError
from labctl.lifecycle.foreign import untyped
from labctl.lifecycle.foreign.draft import Draft, Machine
from labctl.spec.files import read_lab_file
from labctl.spec.problems import quoted
from labctl.spec.values import BadValueError, parse_guest_path, parse_lab_path

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BASH = re.compile(r"#!.*\b(bash|zsh|python3?|perl|ruby)\b|^[^#\n]*(\[\[ |\bsource |\bpipefail\b|<\(|&>)", re.MULTILINE)
_FORWARDS = re.compile(r"ip_forward|ipv6\.conf\.\w+\.forwarding")
_HOME = "/home/vagrant"


@dataclass(slots=True)
class Provisioning:
    """Provisioners become steps. root: the source's folder; files: paths below it that the lab needs too."""

    draft: Draft
    root: Path
    files: set[str] = field(default_factory=set)

    def carry_over(self, machine: Machine, entry: Mapping[str, Any]) -> None:
        """Give a machine the steps of its provisioners."""
        for provisioner in map(untyped.mapping, untyped.items(entry.get("provisioners"))):
            kind, run = untyped.text(provisioner.get("type")), untyped.text(provisioner.get("run"))
            config = untyped.mapping(provisioner.get("config"))
            name = untyped.text(provisioner.get("name"))
            shown = f"provisioner {kind}{f' {quoted(name)}' if name else ''}"
            if run == "never" or kind not in ("shell", "file"):
                machine.notes.append(f"not carried over: {shown}{' (run: never)' if run == 'never' else ''}")
                continue
            if run == "always":
                machine.notes.append(f"{shown} ran at every start; here once")
            try:
                self._shell(machine, config) if kind == "shell" else self._file(machine, config)
            except (LabctlError, BadValueError) as error:
                machine.notes.append(f"not carried over: {shown}: {error}")

    def _shell(self, machine: Machine, config: Mapping[str, Any]) -> None:
        inline, path = untyped.text(config.get("inline")), untyped.text(config.get("path"))
        arguments, variables = _arguments(config.get("args")), untyped.mapping(config.get("env"))
        if config.get("privileged") is False and not machine.windows:
            machine.notes.append("a shell provisioner ran as the user vagrant; here as root")
        if untyped.truth(config.get("reboot")):
            machine.notes.append("not carried over: a reboot after a shell provisioner")
        if path:
            self._script(machine, path, arguments, variables)
        elif inline.strip():
            self._text(machine, _outdented(inline), arguments, variables)

    def _script(self, machine: Machine, path: str, arguments: list[str] | None, variables: Mapping[str, Any]) -> None:
        name, text = self._needed(path)
        if arguments is None:
            machine.notes.append(f"not carried over: the arguments of {name}, which are no words of a shell")
        if variables:
            machine.notes.append(f"not carried over: variables of {name}: {', '.join(map(quoted, variables))}")
        if not machine.windows and not text.startswith(b"#!"):
            machine.notes.append(f"{name} has no #! line; Vagrant ran it with bash, labctl runs it as a program")
        if _FORWARDS.search(text.decode(errors="replace")):
            _hint_router(machine)
        _insist_on_text(*(arguments or ()))
        machine.does({"script": {"source": name, "args": arguments} if arguments else name})

    def _text(self, machine: Machine, text: str, arguments: list[str] | None, variables: Mapping[str, Any]) -> None:
        if machine.windows:
            if arguments or variables:
                machine.notes.append("not carried over: arguments and variables of a shell provisioner")
        else:
            if _BASH.search(text):
                machine.notes.append("a shell text reads like bash; labctl runs it with /bin/sh -e")
            self.draft.note("shell texts ran with bash and went on after errors; here /bin/sh -e runs them and stops")
            text = _with_settings(machine, text, arguments, variables)
        if _FORWARDS.search(text):
            _hint_router(machine)
        _insist_on_text(text)
        machine.does({"shell": text})

    def _file(self, machine: Machine, config: Mapping[str, Any]) -> None:
        target = untyped.text(config.get("destination"))
        if not machine.windows and not target.startswith("/"):
            target = f"{_HOME}/{re.sub(r'^(~|[$]HOME|[$]{HOME})?/', '', target)}"
            machine.notes.append(f"{target}: Vagrant's home of the user vagrant; here the file is root's")
        if (target[:1] == "/") == machine.windows:
            raise BadValueError(f"{quoted(target)} is no full path there")
        name, _text = self._needed(untyped.text(config.get("source")))
        machine.does({"file": {"source": name, "target": parse_guest_path(target)}})

    def _needed(self, path: str) -> tuple[str, bytes]:
        """A file of the source's folder: its path there, and what is in it. Raises LabctlError or BadValueError."""
        if _REMOTE.match(path):
            raise BadValueError(f"{quoted(path)} is on another host")
        inside = Path(path.removeprefix("file:"))
        if inside.is_absolute() and inside.is_relative_to(self.root):
            inside = inside.relative_to(self.root)
        name = parse_lab_path(inside.as_posix())
        if (self.root / name).is_dir():
            raise BadValueError(f"{quoted(name)} is a folder; labctl copies single files")
        text = read_lab_file(self.root, name)
        self.files.add(name)
        return name, text


def _arguments(value: Any) -> list[str] | None:
    """Arguments, written as a list or as a shell would read them; None where no shell would."""
    if isinstance(value, list):
        return [untyped.text(word) for word in value]
    try:
        return shlex.split(untyped.text(value))
    except ValueError:
        return None


def _with_settings(machine: Machine, text: str, arguments: list[str] | None, variables: Mapping[str, Any]) -> str:
    """A shell text with its arguments and variables set before it."""
    before = []
    for name, value in variables.items():
        if _VARIABLE.match(name):
            before.append(f"export {name}={shlex.quote(untyped.text(value))}")
        else:
            machine.notes.append(f"not carried over: the variable {quoted(name)} of a shell provisioner")
    if arguments is None:
        machine.notes.append("not carried over: the arguments of a shell provisioner, which are no words of a shell")
    elif arguments:
        before.append(f"set -- {shlex.join(arguments)}")
    return "\n".join([*before, text])


def _outdented(text: str) -> str:
    """A text without the indentation of the Vagrantfile around it, where that surely is no part of a string."""
    lines = text.split("\n")
    indents = [line[: len(line) - len(line.lstrip(" \t"))] for line in lines if line.strip()]
    common = min(indents, key=len, default="")
    spans = "<<" in text or any(line.count(quote) % 2 for line in lines for quote in "'\"`")
    if spans or not all(indent.startswith(common) for indent in indents):
        return text
    return "\n".join(line.removeprefix(common) for line in lines)


def _insist_on_text(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise BadValueError("it holds a NUL character")


def _hint_router(machine: Machine) -> None:
    hint = "its provisioning switches forwarding on: where it is a router, write router: true and a policy"
    if hint not in machine.notes:
        machine.notes.append(hint)
