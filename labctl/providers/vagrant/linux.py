"""Linux guests: what is done in them, as shell scripts that Vagrant uploads and runs as root."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from labctl.plan.guest import SECRETS, GuestFile, personality
from labctl.plan.guest_network import network_script
from labctl.plan.model import LabPlan, MachinePlan
from labctl.providers.vagrant import management
from labctl.spec.model import FileStep, ScriptStep

SUFFIX = ".sh"
UPLOAD = "/var/tmp/labctl-upload"  # noqa: S108 - a path in the guest, where nobody else has logged in yet


FORGET = f"rm -rf {SECRETS}"
_SHEBANG = "#!/bin/sh -e\n"
_TOLD = f"""\
export LABCTL_SECRETS={SECRETS}
if [ ! -d $LABCTL_SECRETS ]; then
  echo 'This machine is told secrets, which are in no file: labctl up tells them, and plain Vagrant cannot.' >&2
  exit 1
fi
"""


def script(body: str) -> str:
    """A shell script file that stops at its first error."""
    return _SHEBANG + body


def told(text: str) -> str:
    """A script as one that reads the machine's secrets."""
    return _SHEBANG + _TOLD + text.removeprefix(_SHEBANG)


def install(packages: Sequence[str]) -> str:
    """The script that installs what is missing: nothing on labctl's own boxes; foreign ones fetch it while open."""
    return script(
        "missing=''\n"
        f"for package in {shlex.join(packages)}; do\n"
        "  status=$(dpkg-query -W -f '${db:Status-Status}' \"$package\" 2>/dev/null) || :\n"
        '  [ "$status" = installed ] || missing="$missing $package"\n'
        "done\n"
        '[ -n "$missing" ] || exit 0\n'
        "export DEBIAN_FRONTEND=noninteractive\n"
        "apt-get -q update\n"
        "apt-get -qy --no-install-recommends install $missing\n"
    )


def set_up(plan: LabPlan, machine: MachinePlan) -> str:
    """The script that makes a guest the machine of the plan, now and at each boot of it."""
    planned = management.adapted(plan), management.adapted_machine(machine)
    network = network_script(*planned)
    wanted = personality(*planned, authorized_keys=(), host_key=None)
    body = ""
    for file in wanted.files:
        text = file.content.decode()
        if text == network:
            text = management.find(plan, machine) + text + management.close(plan, machine)
        body += _write(text, file.path, file.mode, file.owner)
    return script(body + wanted.script)


def write_file(step: FileStep) -> str:
    """The script that writes a file's content."""
    return script(_write(step.content or "", step.target, step.mode, step.owner))


def place_file(step: FileStep) -> str:
    """The script that puts an uploaded file into its place."""
    return script(f"{_install(UPLOAD, step.target, step.mode)}\n{_own(step.target, step.owner)}rm -f {UPLOAD}\n")


def run_script(number: int, step: ScriptStep) -> str:
    """The script that runs an uploaded one under its own name, with arguments that are each taken as they are."""
    path = f"/var/lib/labctl/steps/{number:02}/{PurePosixPath(step.source).name}"
    return script(f"{_install(UPLOAD, path, '0700')}\nrm -f {UPLOAD}\n{shlex.join([path, *step.args])}\n")


def tell(files: Sequence[GuestFile]) -> str:
    """The script that writes a machine's secrets where its steps find them: in memory, for root alone."""
    lines = [f"printf %s {shlex.quote(file.content.decode())} >{shlex.quote(file.path)}" for file in files]
    return script("\n".join(["umask 077", FORGET, f"mkdir {SECRETS}", *lines]) + "\n")


def _write(text: str, path: str, mode: str, owner: str) -> str:
    """Whole lines go into a here-document, to be read by people; its end is a line that the text does not have."""
    install = _install("/dev/stdin", path, mode)
    if not text.endswith("\n"):
        return f"printf %s {shlex.quote(text)} | {install}\n{_own(path, owner)}"
    end = "END"
    while end in text.split("\n"):
        end += "_"
    return f"{install} <<'{end}'\n{text}{end}\n{_own(path, owner)}"


def _install(source: str, target: str, mode: str) -> str:
    return f"install -D -m {shlex.quote(mode)} {source} {shlex.quote(target)}"


def _own(path: str, owner: str) -> str:
    return f"chown {shlex.quote(owner)} {shlex.quote(path)}\n"
