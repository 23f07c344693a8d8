"""Whether this host can make bridge wires: tried in a namespace that is gone afterwards, once per boot of the host.

That it can is noted, and the note goes as soon as wires cannot be made after all. That it cannot is tried anew each
time: what was missing may have been mended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from labctl.errors import HostError, LabctlError
from labctl.host import netns
from labctl.host.files import write_json
from labctl.host.folders import state_root
from labctl.host.netns import Action
from labctl.host.processes import boot_id
from labctl.host.runner import Runner

_PROGRAMS = ("ip", "bridge", "nft", "unshare", "nsenter")

SETTLE: tuple[Action, ...] = (
    # devices made later inherit "default": the host's side of a wire speaks no IPv6 ...
    ("sysctl", ("net/ipv6/conf/all/disable_ipv6", "1")),
    ("sysctl", ("net/ipv6/conf/default/disable_ipv6", "1")),
    # ... and bridged frames are nobody's business but the bridge's
    ("sysctl", ("net/bridge/bridge-nf-call-iptables", "0")),
    ("sysctl", ("net/bridge/bridge-nf-call-ip6tables", "0")),
    ("sysctl", ("net/bridge/bridge-nf-call-arptables", "0")),
)
"""What is done in a new namespace before anything else."""

_TRIAL: tuple[Action, ...] = (
    *SETTLE,
    ("tap", "ta"),
    ("tap", "tb"),
    (
        "run",
        (
            ["ip", "-batch", "-"],
            "link add name br0 type bridge mcast_snooping 0 stp_state 0\nlink set dev ta master br0 up\n",
        ),
    ),
    ("run", (["bridge", "-batch", "-"], "link set dev ta learning off flood off locked on isolated on\n")),
    (
        "run",
        (
            ["nft", "-f", "-"],
            'table netdev t {\n chain c {\n type filter hook ingress device "ta" priority 0;\n dup to "tb"\n }\n}\n',
        ),
    ),
)


def needs_user_namespace() -> bool:
    """Whether this user is not root and so needs a user namespace around the network's."""
    return os.geteuid() != 0


def lack(runner: Runner) -> str:
    """Why this host cannot make bridge wires, or ``""``: noted, or found by trying, for a fifth of a second."""
    if not sys.platform.startswith("linux"):
        return "they need Linux"
    key = _key()
    if _noted() == key:
        return ""
    found = trial(runner)
    if not found:
        with contextlib.suppress(HostError):  # without a note the next one tries again
            write_json(_note(), {"key": key})
    return found


def forget() -> None:
    """Wires could not be made: whoever asks next tries again."""
    with contextlib.suppress(OSError):
        _note().unlink()


def trial(runner: Runner) -> str:
    """Why this host cannot make bridge wires, or ``""``: makes a bridge with a port and a sensor, and removes them."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian, Ubuntu: apt install iproute2 nftables util-linux)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened by this user"
    with tempfile.TemporaryDirectory(prefix="labctl-") as folder:
        marker = Path(folder) / "trial"
        marker.touch()
        try:
            namespace = netns.create(marker, user=needs_user_namespace(), runner=runner, passing=True)
        except LabctlError as error:
            return f"{error.brief} ({error.details.strip()})" if error.details else error.brief
        try:
            _, fds = namespace.run(_TRIAL, runner=runner)
        except LabctlError as error:
            return error.details.splitlines()[-1] if error.details else error.brief
        finally:
            namespace.holder.stop(grace=1)
    for fd in fds:
        os.close(fd)
    return ""


def _key() -> str:
    """Names this boot of this host, this user and the programs: what changes with any of them is not known."""
    return " ".join((boot_id(), str(os.geteuid()), *(str(shutil.which(name)) for name in _PROGRAMS)))


def _noted() -> str | None:
    try:
        return str(json.loads(_note().read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a missing or damaged note costs one more trial


def _note() -> Path:
    return state_root() / "bridges.json"
