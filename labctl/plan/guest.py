"""What makes a guest the machine of the plan: files to write, and a script to run as root.

For Debian-like guests. Both may be applied again at any time; the result is the same. Texts from the spec reach files
as content and the script only through ``shlex.quote``.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from uuid import UUID

from labctl.errors import UsageError
from labctl.plan.firewall import render_nft
from labctl.plan.guest_network import RULES, network_script
from labctl.plan.model import LabPlan, MachinePlan
from labctl.spec.model import FileStep, PackagesStep, ScriptStep, ShellStep, Step, UserSpec

_NETWORK = "/etc/labctl/network.sh"
_UNIT = "/etc/systemd/system/labctl-network.service"
_WANTED = "/etc/systemd/system/multi-user.target.wants/labctl-network.service"
NETWORK_AT_BOOT = f"[ -e {_WANTED} ] || ln -s {_UNIT} {_WANTED}"
"""Shell text that has a guest set up its network at every boot, from when its files are there."""
_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
_PASSWORDS = "/etc/labctl/passwords"
_KEYS = "/etc/labctl/keys"
_MADE = "/etc/labctl/accounts"
_SUDOERS = "/etc/sudoers.d/labctl"
_STEPS = "/var/lib/labctl/steps"
_WINDOWS_STEPS = "C:/ProgramData/labctl/steps"
SECRETS = "/run/labctl-secrets"
"""Where a step finds its secrets, a file each: not on a disk, and gone when it has ended."""
_ELSEWHERE = "They are with the instance that this one was exported from."
_POWERSHELL = ("powershell.exe", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")

_UNIT_TEXT = f"""\
[Unit]
Description=Network of this machine as labctl planned it
Wants=network.target
Before=network.target ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {_NETWORK}

[Install]
WantedBy=multi-user.target
"""

_ACCOUNTS = """\
# Sets uid, gid, home and shell of an account; fails where it does not exist.
account() {
  while IFS=: read -r name _ uid gid _ home shell; do
    if [ "$name" = "$1" ]; then return 0; fi
  done </etc/passwd
  return 1
}
need_group() {
  while IFS=: read -r name _; do
    if [ "$name" = "$1" ]; then return 0; fi
  done </etc/group
  groupadd -- "$1"
}
install_keys() {
  account "$1"
  install -d -m 0700 -o "$uid" -g "$gid" "$home/.ssh"
  install -m 0600 -o "$uid" -g "$gid" "$2" "$home/.ssh/authorized_keys"
}
"""

_SSHD = """\
sshd_runs() {
  for comm in /proc/[0-9]*/comm; do
    if read -r name 2>/dev/null <"$comm" && [ "$name" = sshd ]; then return 0; fi
  done
  return 1
}
sshd_listens() {
  tries=100
  until [ -s /run/sshd.pid ] || [ "$tries" = 0 ]; do sleep 0.1; tries=$((tries - 1)); done
  [ -s /run/sshd.pid ]
}"""


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file to write into a guest, its parents made where missing. mode is octal, owner ``user:group``."""

    path: str
    content: bytes
    mode: str = "0644"
    owner: str = "root:root"


@dataclass(frozen=True, slots=True)
class Personality:
    """What makes a guest a machine of the plan: write the files, then run the script with ``/bin/sh -e`` as root."""

    files: tuple[GuestFile, ...]
    script: str


@dataclass(frozen=True, slots=True)
class GuestStep:
    """A provisioning step: write the files, then run ``argv`` as root; an empty argv means that the files are all.

    secrets: written like the files, for the time of the step.
    """

    title: str
    files: tuple[GuestFile, ...]
    argv: tuple[str, ...] = ()
    secrets: tuple[GuestFile, ...] = ()

    @property
    def script(self) -> str:
        """The same as text for a POSIX shell."""
        run = shlex.join(self.argv)
        if not self.secrets:
            return run
        return f"export LABCTL_SECRETS={SECRETS}; trap 'rm -rf {SECRETS}' 0; {run}"


def personality(
    plan: LabPlan,
    machine: MachinePlan,
    *,
    authorized_keys: tuple[str, ...],
    host_key: tuple[str, str] | None,
    login_user: str = "root",
) -> Personality:
    """Name, network, firewall, accounts and SSH keys of a Linux guest.

    authorized_keys: public lines that may log in as ``login_user``, which must exist. host_key: the guest's own Ed25519
    SSH host key as private text and public line; None leaves it as it is. Raises UsageError for an account name or a
    password that a guest cannot hold.
    """
    for user in machine.users:
        _check(user)
    keys = _keys(machine, authorized_keys, login_user)
    files = [
        GuestFile("/etc/hostname", f"{machine.name}\n".encode()),
        GuestFile("/etc/hosts", _hosts(machine).encode()),
        GuestFile("/etc/machine-id", f"{UUID(machine.uuid).hex}\n".encode(), "0444"),
        GuestFile(_NETWORK, network_script(plan, machine).encode()),
        GuestFile(_UNIT, _UNIT_TEXT.encode()),
        *(GuestFile(_keys_path(name), _lines(lines), "0600") for name, lines in keys.items()),
        *_account_files(machine),
    ]
    if machine.resolvers:
        lines = tuple(f"nameserver {address}" for address in machine.resolvers)
        files.append(GuestFile("/etc/resolv.conf", _lines(lines)))
    if machine.router:
        files.append(GuestFile(RULES, render_nft(machine, plan.management.device).encode()))
    if host_key is not None:
        files.append(GuestFile(_HOST_KEY, _lines((host_key[0].rstrip("\n"),)), "0600"))
        files.append(GuestFile(f"{_HOST_KEY}.pub", _lines((host_key[1].rstrip("\n"),))))
    script = [
        f". {_NETWORK}",
        f"printf '%s\\n' {shlex.quote(machine.name)} >/proc/sys/kernel/hostname",
        NETWORK_AT_BOOT,
        *_account_script(machine, tuple(keys)),
        *_reload_ssh(host_key),
    ]
    return Personality(tuple(files), "\n".join(script) + "\n")


def steps(
    machine: MachinePlan, read: Callable[[str], bytes], secrets: Mapping[str, str] = MappingProxyType({})
) -> tuple[GuestStep, ...]:
    """A machine's provisioning steps in order. read gives the content of a file by its path in the lab's folder.

    secrets: the instance's, by name. Raises UsageError where one that the machine is told is not among them.
    """
    told = secret_files(machine, secrets)
    made = [_step(number, step, machine.os == "windows", read) for number, step in enumerate(machine.steps, 1)]
    return tuple(replace(step, secrets=told) if step.argv else step for step in made)


def secret_files(machine: MachinePlan, known: Mapping[str, str]) -> tuple[GuestFile, ...]:
    """What a machine is told, a file each. known: the instance's. Raises UsageError where one is not among them."""
    for name in machine.secrets:
        if name not in known:
            raise UsageError(f"the secret {name} of {machine.name} is not known here", hint=_ELSEWHERE)
    return tuple(GuestFile(f"{SECRETS}/{name}", known[name].encode(), "0600") for name in machine.secrets)


def _check(user: UserSpec) -> None:
    for name in (user.name, *user.groups):
        if not _ACCOUNT.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of an account or a group")
    if any(character in (user.password or "") for character in "\n\r\0"):
        raise UsageError(f"the password of {user.name} has a line break", hint="Nobody could type it.")


def _keys(machine: MachinePlan, authorized: tuple[str, ...], login_user: str) -> dict[str, tuple[str, ...]]:
    """Account to its authorised keys; accounts without any keep what they have."""
    found: dict[str, tuple[str, ...]] = {login_user: authorized} if authorized else {}
    for user in machine.users:
        if user.keys:
            found[user.name] = (*found.get(user.name, ()), *user.keys)
    return found


def _keys_path(name: str) -> str:
    """root's keys go where they belong at once; others' when it is known where their home is."""
    return "/root/.ssh/authorized_keys" if name == "root" else f"{_KEYS}/{name}"


def _lines(lines: tuple[str, ...]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _hosts(machine: MachinePlan) -> str:
    """The machine's own name means its first address, so that services that look it up listen on the lab's network."""
    own = next((a for i in machine.interfaces for a in i.addresses()), None)
    lines = [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        f"{own or '127.0.1.1'} {machine.name}",
        *(f"{address} {' '.join(names)}" for address, names in machine.hosts),
    ]
    return "\n".join(lines) + "\n"


def _account_files(machine: MachinePlan) -> Iterator[GuestFile]:
    passwords = [f"{user.name}:{user.password}" for user in machine.users if user.password is not None]
    if passwords:
        yield GuestFile(_PASSWORDS, _lines(tuple(passwords)), "0600")
    sudoers = [f"{user.name} ALL=(ALL:ALL) NOPASSWD: ALL" for user in machine.users if user.sudo]
    if sudoers:
        yield GuestFile(_SUDOERS, _lines(tuple(sudoers)), "0440")


def _account_script(machine: MachinePlan, keyed: tuple[str, ...]) -> Iterator[str]:
    yield _ACCOUNTS
    for user in machine.users:
        yield from _account(user)
    if any(user.password is not None for user in machine.users):
        # not through PAM, whose yescrypt takes seconds under emulation
        yield f"chpasswd -c SHA512 <{_PASSWORDS}"
        yield f"rm -f {_PASSWORDS}"
    for name in keyed:
        if name != "root":
            yield f"install_keys {shlex.quote(name)} {shlex.quote(_keys_path(name))}"
    if not any(user.sudo for user in machine.users):
        yield f"[ ! -e {_SUDOERS} ] || rm -f {_SUDOERS}"
    yield from _dropped(machine)


def _dropped(machine: MachinePlan) -> Iterator[str]:
    """Remove accounts that labctl has made and the plan has no more; one in use is locked. Homes stay."""
    wanted = " | ".join(["''", *(shlex.quote(user.name) for user in machine.users)])
    yield f"if [ -e {_MADE} ]; then"
    yield "  kept=''"
    yield "  while read -r name; do"
    yield "    case $name in"
    yield f'      {wanted}) kept="$kept$name'
    yield '" ;;'
    yield '      *) if account "$name"; then userdel -- "$name" || usermod -L -e 1 -- "$name"; fi ;;'
    yield "    esac"
    yield f"  done <{_MADE}"
    yield f"  printf '%s' \"$kept\" >{_MADE}"
    yield "fi"


def _account(user: UserSpec) -> Iterator[str]:
    name, shell = shlex.quote(user.name), shlex.quote(user.shell)
    groups = f" -G {shlex.quote(','.join(user.groups))}" if user.groups else ""
    yield from (f"need_group {shlex.quote(group)}" for group in user.groups)
    yield f"if ! account {name}; then"
    yield f"  useradd -m -s {shell}{groups} -- {name}"
    yield f"  echo {name} >>{_MADE}"
    yield "else"
    yield f'  if [ "$shell" != {shell} ]; then usermod -s {shell} -- {name}; fi'
    if groups:
        yield f"  usermod -a{groups} -- {name}"
    yield "fi"


def _reload_ssh(host_key: tuple[str, str] | None) -> Iterator[str]:
    """sshd reads its host key when it starts; tell it once about another one, and wait until it listens with it.

    It writes its number when it listens and takes signals. One that starts just now may have read the old key already,
    so it is awaited; one that was told listens anew only after a while, in which it would refuse a login.
    """
    if host_key is None:
        return
    digest = hashlib.sha256(host_key[1].encode()).hexdigest()
    yield _SSHD
    yield "known=''"
    yield "if [ -e /run/labctl-host-key ]; then read -r known </run/labctl-host-key; fi"
    yield f'if [ "$known" != {digest} ] && sshd_runs && sshd_listens; then'
    yield "  read -r pid </run/sshd.pid && rm -f /run/sshd.pid"
    yield '  kill -HUP "$pid" && sshd_listens || :'
    yield "fi"
    yield f"echo {digest} >/run/labctl-host-key"


def _step(number: int, step: Step, windows: bool, read: Callable[[str], bytes]) -> GuestStep:
    folder = _WINDOWS_STEPS if windows else _STEPS
    match step:
        case FileStep():
            content = read(step.source) if step.source is not None else (step.content or "").encode()
            return GuestStep(f"file {step.target}", (GuestFile(step.target, content, step.mode, step.owner),))
        case ShellStep():
            title = f"shell {step.shell.strip().partition(chr(10))[0]}"
            if windows:
                text = f"$ErrorActionPreference = 'Stop'\r\n{step.shell}\r\n"
                file = GuestFile(f"{folder}/{number:02}.ps1", text.encode())
                return GuestStep(title, (file,), (*_POWERSHELL, file.path))
            file = GuestFile(f"{folder}/{number:02}.sh", step.shell.encode(), "0700")
            return GuestStep(title, (file,), ("/bin/sh", "-e", file.path))
        case ScriptStep():
            # the name is kept, because scripts look at it and people read it in error messages
            path = f"{folder}/{number:02}/{PurePosixPath(step.source).name}"
            run = _POWERSHELL if windows and path.lower().endswith(".ps1") else ()
            file = GuestFile(path, read(step.source), "0700")
            return GuestStep(f"script {step.source}", (file,), (*run, path, *step.args))
        case PackagesStep():
            raise AssertionError("packages are part of the image, not steps of a plan")
