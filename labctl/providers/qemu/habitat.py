"""What a machine's memory can only be loaded into again: the same release of QEMU, devices and processor."""

from __future__ import annotations

import hashlib
import itertools
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from labctl.errors import HostError
from labctl.host.runner import Runner
from labctl.providers.qemu.argv import BINARY

_OF_THIS_HOST = ("host", "max")  # processors that QEMU makes of what it runs on
_SHAPE = ("-machine", "-smp", "-m", "-device")
_OWN = re.compile(r",(mac|serial)=[^,]*")


def of(argv: Sequence[str], release: str) -> Mapping[str, str]:
    """Of a machine with this command line: names for people, and what has to be the same."""
    options = list(itertools.pairwise(argv))
    accelerator = next((value.partition(",")[0] for name, value in options if name == "-accel"), "")
    processor = next((value for name, value in options if name == "-cpu"), "")
    shape = [(name, _OWN.sub("", value)) for name, value in options if name in _SHAPE]
    return {
        "QEMU": release,
        "accelerator": accelerator,
        "processor": host_processor() if processor in _OF_THIS_HOST else processor,
        "devices": hashlib.sha256(repr(shape).encode()).hexdigest()[:16],
    }


def release(version: Mapping[str, Any]) -> str:
    """From what ``query-version`` says: devices of one minor release understand each other's state."""
    return f"{version['qemu']['major']}.{version['qemu']['minor']}"


def release_here(runner: Runner) -> str:
    """Of the QEMU that machines are started with. Raises HostError where it does not say."""
    found = re.search(r"version (\d+\.\d+)", runner.run([BINARY, "--version"], changes=False).text)
    if found is None:
        raise HostError(f"{BINARY} does not say which version it is")
    return found.group(1)


def host_processor() -> str:
    """Of this host: the model, and a digest of what it can."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    facts = dict(_facts(text.partition("\n\n")[0]))
    digest = hashlib.sha256(facts.get("flags", "").encode()).hexdigest()[:8]
    return "".join(c for c in f"{facts.get('model name', '')} {digest}" if " " <= c <= "~")


def _facts(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()
