"""Errors that people read.

Raise the narrowest class at the place that knows the cause; ``labctl.__main__`` is the one boundary that prints them.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees. Scripts may rely on these numbers."""

    OK = 0
    ERROR = 1  # something labctl or the host could not do
    USAGE = 2  # the command line or the spec is wrong
    FAIL = 3  # verify: at least one verdict is FAIL
    INCONCLUSIVE = 4  # verify: no FAIL, but a check that could not have failed
    CHANGES = 5  # plan --detailed-exitcode: the spec and what runs differ
    BUSY = 6  # another labctl holds the instance's lock
    BUG = 70  # a defect in labctl (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130  # Ctrl-C, as shells report SIGINT


class LabctlError(Exception):
    """An expected failure.

    brief: one line, what is wrong. details: more lines, such as a tool's own last words. hint: what to do next.
    reference: a command or page that says more.
    """

    exit_code: ExitCode = ExitCode.ERROR

    def __init__(self, brief: str, *, details: str = "", hint: str = "", reference: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.hint = hint
        self.reference = reference


class UsageError(LabctlError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = ExitCode.USAGE


class HostError(LabctlError):
    """This host lacks a program, a right, memory, disk or a port."""


class ProviderError(LabctlError):
    """An engine did not do what it was told."""


class GuestError(LabctlError):
    """A guest did not answer, or a command in it failed."""


class ImageError(LabctlError):
    """An image cannot be found, built, fetched or trusted."""


class StateError(LabctlError):
    """The record of an instance cannot be read or written."""


class BusyError(LabctlError):
    """Another process holds what this one needs."""

    exit_code = ExitCode.BUSY
