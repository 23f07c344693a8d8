"""A real SSH server on a test's host, and students with keys and homes of their own on a computer outside."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from labctl.host.folders import cache_root
from tests.support.surroundings import HOST, Surroundings

ACCOUNT = "labs"

# All that sshd can be told to allow is allowed: what holds, labctl's lines hold.
_SETTINGS = """\
ListenAddress {host}:{port}
HostKey {folder}/host
PidFile none
LogLevel VERBOSE
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
AllowAgentForwarding yes
GatewayPorts yes
X11Forwarding yes
XAuthLocation /bin/true
Subsystem sftp internal-sftp
"""
# In a mount namespace of its own: other accounts ($0), and where sshd shuts its parts in.
_SERVE = 'mount --bind "$0" /etc/passwd; mount -t tmpfs tmpfs /run; mkdir /run/sshd; exec "$@"'
_LIVE = 'mount --bind "$0" /etc/passwd; exec "$@"'


@functools.cache
def program() -> Path:
    """sshd: this computer's, or one that is unpacked and not installed, since Debian would start it at once."""
    if Path("/usr/sbin/sshd").exists():
        return Path("/usr/sbin/sshd")
    folder = cache_root() / "tests" / "openssh-server"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (found := folder / "root/usr/sbin/sshd").exists():
            _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "openssh-server", cwd=folder)
            (package,) = folder.glob("openssh-server_*.deb")
            _run("dpkg-deb", "--extract", str(package), str(folder / "new"))
            package.unlink()
            (folder / "new").rename(folder / "root")
    return found


@dataclass(frozen=True)
class Server:
    """It runs in its host's namespace, and lets in ``labs``, who is root there: what that account may not, none may."""

    host: Surroundings
    home: Path
    port: int
    log: Path

    @property
    def name(self) -> str:
        return f"{ACCOUNT}@{HOST}:{self.port}"

    @property
    def keys(self) -> Path:
        """Of the account's lines."""
        return self.home / ".ssh" / "authorized_keys"


@contextmanager
def sshd(host: Surroundings, folder: Path, port: int = 22) -> Iterator[Server]:
    """One for the time of the block. It is left alone with those who come, and ended with them."""
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    keygen(folder / "host")
    settings = folder / "sshd_config"
    settings.write_text(_SETTINGS.format(host=HOST, port=port, folder=folder))
    accounts = folder / "passwd"
    shut_in = "sshd:x:65534:65534::/run/sshd:/usr/sbin/nologin"
    accounts.write_text(
        Path("/etc/passwd").read_text() + f"{ACCOUNT}:x:0:0::{home}:/bin/sh\n{shut_in}\n",
    )
    argv = [*host.enter(folder), "unshare", "--mount", "--", "sh", "-ec", _SERVE, str(accounts)]
    argv += [str(program()), "-D", "-e", "-f", str(settings)]
    log = folder / "sshd.log"
    with log.open("wb") as written, subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=written) as process:
        try:
            deadline = time.monotonic() + 30
            while b"Server listening" not in log.read_bytes():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield Server(host, home, port, log)
        finally:
            process.terminate()


@dataclass(frozen=True)
class Said:
    """How a program ended."""

    code: int
    out: str
    error: str


@dataclass(frozen=True)
class Person:
    """Somebody outside, with a key and settings for SSH."""

    server: Server
    home: Path

    @classmethod
    def make(cls, server: Server, home: Path) -> Person:
        """With a new key, who has met the server before."""
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        keygen(home / ".ssh/id_ed25519")
        kind, key = (server.log.parent / "host.pub").read_text().split()[:2]
        where = f"[{HOST}]:{server.port}" if server.port != 22 else HOST
        (home / ".ssh/known_hosts").write_text(f"{where} {kind} {key}\n")
        accounts = re.sub(r"(?m)^root:.*$", f"root:x:0:0::{home}:/bin/sh", Path("/etc/passwd").read_text())
        (home / "passwd").write_text(accounts)
        return cls(server, home)

    @property
    def key(self) -> str:
        return (self.home / ".ssh/id_ed25519.pub").read_text().strip()

    def settings(self, text: str) -> None:
        """For SSH, as ``~/.ssh/config``."""
        (self.home / ".ssh/config").write_text(text)

    def start(self, *argv: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Any program, outside, at home."""
        outside = ["nsenter", f"--target={self.server.host.world}", "--net", f"--wd={self.home}", "--"]
        here = ["unshare", "--mount", "--", "sh", "-ec", _LIVE, str(self.home / "passwd")]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "DISPLAY": "127.0.0.1:7"}
        pipe = subprocess.PIPE
        return subprocess.Popen([*outside, *here, *argv], env=environment, stdin=stdin, stdout=pipe, stderr=pipe)

    def run(self, *argv: str, stdin: bytes = b"", seconds: float = 120) -> Said:
        """Run it to its end."""
        with self.start(*argv, stdin=subprocess.PIPE) as process:
            out, error = process.communicate(stdin, timeout=seconds)
        return Said(process.returncode, out.decode(errors="replace"), error.decode(errors="replace"))

    def ssh(self, *words: str, stdin: bytes = b"") -> Said:
        """SSH without anybody to ask."""
        return self.run("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", *words, stdin=stdin)

    def at_the_door(self, *words: str, stdin: bytes = b"") -> Said:
        """SSH to the server itself. words: options, then ``--`` and what to run there, if anything."""
        at = words.index("--") if "--" in words else len(words)
        who = ("-p", str(self.server.port), *words[:at], "--", f"{ACCOUNT}@{HOST}")
        return self.ssh(*who, *words[at + 1 :], stdin=stdin)


def keygen(path: Path) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path))


def _run(*argv: str, cwd: Path | None = None) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
