"""The ``vagrant`` program: python-vagrant with our runner under it, and the output that it cannot read.

``--machine-readable`` prints ``timestamp,target,type,data…`` with commas and line breaks in data escaped.
Reference: https://developer.hashicorp.com/vagrant/docs/cli/machine-readable
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import vagrant

from labctl.errors import HostError, ProviderError
from labctl.host.runner import CommandError, Result, Runner, mortal

_SHORT_SECONDS = 120.0
_LAST_LINES = 12
_BACKTRACE = re.compile(r"\s+(from )?/\S+:\d+:in ")
_ENVIRONMENT = {
    "VAGRANT_NO_COLOR": "1",
    # Vagrant would ask its maker for news of itself and of boxes.
    "VAGRANT_CHECKPOINT_DISABLE": "1",
    "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1",
    "LABCTL_WAVES": "1",  # labctl keeps the order of dependencies itself
}


# VirtualBox's status codes are listed in its iprt/err.h and VBox/err.h, Vagrant's words in its locales/en.yml.
_HINTS = (
    (
        r"VERR_VMX_IN_VMX_ROOT_MODE|VERR_SVM_IN_USE",
        "Another hypervisor has VT-x or AMD-V: end its machines, or unload it (modprobe -r kvm_intel kvm_amd).",
    ),
    (
        r"VERR_VMX_MSR_ALL_VMX_DISABLED|VERR_VMX_MSR_VMX_DISABLED|VERR_SVM_DISABLED|VERR_VMX_NO_VMX|VERR_SVM_NO_SVM",
        "Switch VT-x or AMD-V on in the firmware; inside a virtual machine, switch on nested virtualisation.",
    ),
    (r"VERR_NEM_", "Hyper-V has the processor. Switch it off: bcdedit /set hypervisorlaunchtype off, then restart."),
    (
        r"VERR_VM_DRIVER_NOT_INSTALLED|rc=-1908",
        "VirtualBox's kernel driver is not loaded: sudo /sbin/vboxconfig, or apt install virtualbox-dkms.",
    ),
    (
        r"[Bb]ox '[^']*' could not be found|couldn't open file|could not be found or\s+could not be accessed",
        "There is no such box. An image of labctl's own is one that labctl makes: labctl image list. A box by URL goes "
        "into your images.yaml.",
    ),
    (r"VirtualBox (installed )?that is not supported|[Nn]o usable default provider", "labctl doctor says more."),
)


@dataclass(frozen=True, slots=True)
class Said:
    """A line of ``--machine-readable`` output. target is a machine's name or empty."""

    target: str
    kind: str
    data: tuple[str, ...]

    @classmethod
    def of(cls, line: str) -> Said | None:
        """Read a line; None for what plug-ins print beside the format."""
        fields = line.split(",")
        if len(fields) < 4 or not fields[0].isdigit():
            return None
        return cls(fields[1], fields[2], tuple(_unescaped(field) for field in fields[3:]))


class Vagrant(vagrant.Vagrant):
    """``vagrant`` in one project folder. Every program it starts is logged, timed and started by our runner."""

    def __init__(
        self,
        root: Path,
        runner: Runner,
        *,
        lab_root: Path | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """root: the folder with the Vagrantfile. lab_root: the folder that the lab's files are uploaded from.

        variables: of the environment, which the Vagrantfile reads.
        """
        super().__init__(root=str(root))  # type: ignore[no-untyped-call] # the library has no types
        environment = {**runner.environment, **_ENVIRONMENT, **variables}
        if lab_root is not None:
            environment["LABCTL_LAB_ROOT"] = str(lab_root)
        self._runner = Runner(runner.log, runner.dry_run, environment)
        self._folder = root

    def carry_out(
        self,
        machine: str,
        arguments: Sequence[str],
        *,
        said: Callable[[str], None],
        timeout: float,
        cancelled: Callable[[], bool],
    ) -> None:
        """Run a verb for one machine, such as ``["up", "--provision"]``, and hand on what it says, line by line.

        timeout is in seconds. Raises ProviderError with Vagrant's own last words.
        """
        words: list[str] = []
        errors: list[str] = []

        def hear(line: str) -> None:
            heard = Said.of(line)
            if heard is None:
                return
            if heard.kind == "error-exit" and len(heard.data) > 1:
                errors.append(heard.data[1])
            elif heard.kind == "ui" and len(heard.data) > 1:
                for text in _texts(heard.data[1], machine):
                    words.append(text)
                    said(text)

        argv = self._argv([arguments[0], machine, *arguments[1:], "--machine-readable"])
        result = self._runner.follow(argv, hear, timeout=timeout, cwd=self._folder, cancelled=cancelled)
        if result.code != 0:
            raise _failure(machine, arguments[0], result, [*words[-_LAST_LINES:], *errors])

    def _argv(self, arguments: Sequence[str | None]) -> list[str]:
        try:
            return [*mortal(), *self._make_vagrant_command(list(arguments))]  # type: ignore[no-untyped-call] # as above
        except RuntimeError as error:
            raise HostError("Vagrant is not installed", hint="labctl doctor says how to get it.") from error

    def _run_vagrant_command(self, args: Sequence[str | None]) -> str:
        """What the library reads the output of."""
        return self._run(args).text

    def _call_vagrant_command(self, args: Sequence[str | None]) -> None:
        """What the library only runs."""
        self._run(args)

    def _run(self, args: Sequence[str | None]) -> Result:
        try:
            return self._runner.run(self._argv(args), timeout=_SHORT_SECONDS, cwd=self._folder)
        except CommandError as error:
            raise ProviderError(error.brief, details=error.details) from error


def _failure(machine: str, verb: str, result: Result, words: Sequence[str]) -> ProviderError:
    if result.code is None:
        return ProviderError(f"vagrant {verb} {machine} did not end in time", details="\n".join(words))
    said = result.stderr.decode(errors="replace").splitlines()
    told = [line for line in said if line.strip() and not _BACKTRACE.match(line)]  # a plug-in that crashed
    details = "\n".join(told[-_LAST_LINES:] or words)
    return ProviderError(f"vagrant {verb} {machine} failed", details=details, hint=_hint(details))


def _hint(words: str) -> str:
    """What helps where an engine's words are known, else ``""``."""
    return next((hint for pattern, hint in _HINTS if re.search(pattern, words)), "")


def _texts(message: str, machine: str) -> Iterator[str]:
    """The lines of a message for people, without the name of the machine in front and the noise of curses."""
    for line in message.splitlines():
        text = "".join(c if c.isprintable() else " " for c in line).strip()
        for prefix in (f"==> {machine}:", f"{machine}:"):
            with suppress(ValueError):
                text = text[text.index(prefix) + len(prefix) :] if text.startswith(prefix) else text
        if text := text.strip():
            yield text


def _unescaped(field: str) -> str:
    return field.replace("%!(VAGRANT_COMMA)", ",").replace("\\n", "\n").replace("\\r", "\r")
