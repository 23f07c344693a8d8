"""SSH keys of an instance: one pair that opens its guests, and a host key per guest, pinned."""

from __future__ import annotations

from pathlib import Path

from labctl.host.files import write_atomic
from labctl.host.runner import Runner


def ensure(path: Path, *, comment: str, runner: Runner) -> None:
    """Make an ed25519 pair, ``path`` (0600) and ``path.pub``, unless it is there."""
    if there(path):
        return
    path.unlink(missing_ok=True)  # half a pair: a crash between the two files
    _public_file(path).unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    runner.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path],
        hint="Debian, Ubuntu: apt install openssh-client",
    )


def there(path: Path) -> bool:
    """Whether both halves of a pair exist."""
    return path.exists() and _public_file(path).exists()


def public(path: Path) -> str:
    """The public line of a pair."""
    return _public_file(path).read_text(encoding="utf-8").strip()


def pin(known_hosts: Path, host: str, port: int, host_key: Path) -> None:
    """Write the one key that the guest behind ``host:port`` may have."""
    kind, key = public(host_key).split()[:2]
    line = f"[{host}]:{port} {kind} {key}\n"
    if not known_hosts.exists() or known_hosts.read_text(encoding="utf-8") != line:
        write_atomic(known_hosts, line, mode=0o600)


def _public_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")
