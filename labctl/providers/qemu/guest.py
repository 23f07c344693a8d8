"""What is done inside a guest over its agent: configuration, then provisioning step by step."""

from __future__ import annotations

import hashlib
import secrets
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from labctl.errors import GuestError
from labctl.host.files import append
from labctl.plan import guest as personalities
from labctl.plan.guest import GuestFile, GuestStep, Personality
from labctl.plan.model import MachinePlan
from labctl.providers.base import ExecResult, Job
from labctl.providers.clock import SET_CLOCK
from labctl.providers.qemu import pack, waiting
from labctl.providers.qemu import record as records
from labctl.providers.qemu.agent import Agent
from labctl.providers.qemu.record import MachineRecord
from labctl.providers.qemu.settling import ANY_HOST_KEY, ENVIRONMENT, FIXED_PLACES, OWN_PLACES, SPOOL
from labctl.spec.files import read_lab_file
from labctl.spec.secrets import mask

_CONFIGURE_SECONDS = 120.0
_LOGIN_SECONDS = 60
_STEP_SECONDS = 1800.0
_PACK = "/run/labctl-pack"
# A labctl that was interrupted has left its program running, for the agent cannot stop one: let it end first.
_TURN = (
    f"[ -d {SPOOL} ] || mkdir -p -m 0700 {SPOOL}; if [ -e {SPOOL}/pid ]; then read -r pid <{SPOOL}/pid; "
    f'while [ -d "/proc/$pid" ]; do sleep 0.2; done; fi; echo $$ >{SPOOL}/pid'
)
# The agent takes a program's whole input in one message, which the guest holds in memory several times over.
_STDIN_LIMIT = 256 << 10
_LAST_LINES = 12
_NO_LOGIN = "labctl: no SSH server listens"
# The kernel says who listens (state 0A) on port 22 (0016), and no program has to be started to ask it.
_AWAIT_LOGIN = f"""
ssh_listens() {{
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ ! -e "$table" ] || while read -r _ local _ state _; do
      case $local-$state in *:0016-0A) return 0 ;; esac
    done <"$table"
  done
  return 1
}}
read -r now _ </proc/uptime
until=$((${{now%.*}} + {_LOGIN_SECONDS}))
until ssh_listens; do
  read -r now _ </proc/uptime
  if [ "${{now%.*}}" -ge "$until" ]; then
    echo '{_NO_LOGIN}'
    break
  fi
  sleep 0.5
done
"""
# A step that is noted as done must be on the disk: a QEMU that is killed loses what its guest has not written out. The
# configuration is made again after every boot.
_KEEP = "\nsync\n"
# Where the guest's own script notes which key its SSH server has been told of (see labctl.plan.guest).
_KEY_NOTE = "/run/labctl-host-key"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may log in with which public line, and the guest's own SSH host key (private text, public line)."""

    user: str
    authorized_key: str
    host_key: str
    host_key_public: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a guest should have applied, with digests that say whether it has."""

    personality: Personality
    personality_digest: str
    steps: tuple[GuestStep, ...]
    steps_digest: str

    @classmethod
    def of(cls, job: Job, machine: MachinePlan, access: Access) -> Wanted:
        """Compute it from the plan and the files that steps name. Raises UsageError where one is missing."""
        personality = personalities.personality(
            job.plan,
            machine,
            authorized_keys=(access.authorized_key,),
            host_key=(access.host_key, access.host_key_public),
            login_user=access.user,
        )
        steps = personalities.steps(machine, lambda source: read_lab_file(job.root, source), job.secrets)
        return cls(personality, records.digest_of(personality), steps, records.digest_of(steps))

    def applied(self, record: MachineRecord) -> bool:
        """Whether the machine has all of it."""
        same = record.personality == self.personality_digest and record.steps == self.steps_digest
        return same and record.steps_done == len(self.steps)


@dataclass(frozen=True, slots=True)
class Copy:
    """A guest that begins with another's memory.

    macs: pairs of the MAC that a NIC has there and its own. host_key: the public line of its own SSH host key where the
    memory is a template's, else empty.
    """

    macs: Sequence[tuple[str, str]]
    host_key: str = ""

    def moved(self) -> str:
        """What gives its NICs their own MACs: shell text."""
        cases = "".join(f"    {old}) mac={new} ;;\n" for old, new in self.macs)
        return f"""\
: >/var/lib/systemd/random-seed
moves=''
for path in /sys/class/net/*; do
  read -r mac <"$path/address" || continue
  case $mac in
{cases}    *) continue ;;
  esac
  moves="${{moves}}link set dev ${{path##*/}} down
link set dev ${{path##*/}} address $mac
"
done
[ -z "$moves" ] || ip -batch - <<END
$moves
END
"""

    def rekeyed(self) -> str:
        """What spares it to tell its SSH server of a key, where that was seen to need no telling: shell text."""
        if not self.host_key:
            return ""
        digest = hashlib.sha256(self.host_key.encode()).hexdigest()
        spared = f"[ ! -e {ANY_HOST_KEY} ] || echo {digest} >{_KEY_NOTE}"
        return f"{spared}\n{FIXED_PLACES}trap '{OWN_PLACES}' 0\n"


def renewed() -> str:
    """What gives a copy the time and random numbers of its own: shell text for right now.

    Its clock stands at the moment of the memory; where this text is carried out late, its hardware's says what time it
    is. Its kernel would go on with the same random numbers as every other copy: it gets others from this host, and is
    told to use them at once (RNDRESEEDCRNG of random(4)), because not every kernel heeds the virtual machine's
    generation ID.
    """
    reseed = f'open(R,"+<","/dev/urandom")&&syswrite(R,pack("H*","{_seed().hex()}"))&&ioctl(R,0x5207,0)||exit 1'
    return f"[ ! -x /usr/bin/perl ] || perl -e '{reseed}'\nnow={time.time():.3f}\n{SET_CLOCK}"


def _seed() -> bytes:
    return secrets.token_bytes(64)


def configure(
    session: Agent, name: str, personality: Personality, *, copy: Copy | None = None, begun: bool = False, log: Path
) -> bool:
    """Write the files of a personality and run its script. Raises GuestError.

    copy: the guest begins with another's memory and is told so first; it may be told again. begun: the guest may be
    booting still, and its SSH server starts after its agent, so that is awaited. Gives whether there was one; an image
    from elsewhere may have none.
    """
    script = personality.script + (_AWAIT_LOGIN if begun else "")
    timeout = _CONFIGURE_SECONDS + (_LOGIN_SECONDS if begun else 0)
    result = None
    if copy is not None:
        script = copy.rekeyed() + copy.moved() + script
        if copy.host_key:
            files = pack.framed(_with_run(personality.files, script))
            result = waiting.tell(session, time.time(), _seed(), files, timeout=timeout)
    if result is None:
        renewal = renewed() if copy is not None else ""
        result = _deliver(session, personality.files, renewal + script, timeout=timeout)
    _judge(name, "configuration", result, log)
    return _NO_LOGIN.encode() not in result.stdout


def run_step(session: Agent, name: str, step: GuestStep, *, log: Path) -> None:
    """Carry out one provisioning step; its output goes to ``log``. Raises GuestError with its last lines."""
    result = _deliver(session, step.files + step.secrets, step.script + _KEEP, timeout=_STEP_SECONDS)
    _judge(name, step.title, _masked(result, step), log)


def _masked(result: ExecResult, step: GuestStep) -> ExecResult:
    """A step may print what it was told, as with ``set -x``."""
    known = {PurePosixPath(file.path).name: file.content.decode() for file in step.secrets}
    return replace(result, stdout=mask(result.stdout, known), stderr=mask(result.stderr, known))


def _deliver(session: Agent, files: tuple[GuestFile, ...], script: str, *, timeout: float) -> ExecResult:
    """Unpack files and run a script in one program: under emulation each new program costs a tenth of a second."""
    files = _with_run(files, script)
    result = _run_pack(session, pack.framed(files), pack.WITH_PERL, timeout)
    if result.code == 1 and result.stdout == f"{pack.NO_PERL}\n".encode():
        return _run_pack(session, pack.archive(files), pack.WITH_TAR, timeout)
    return result


def _with_run(files: tuple[GuestFile, ...], script: str) -> tuple[GuestFile, ...]:
    """Files, and the script that is run when they are there."""
    # whose an unpacked file is has no name then: to look one up costs more than to write the file, and chown fails for
    # one that is unknown, as it should
    owners = "".join(
        f"chown -- {shlex.quote(file.owner)} {shlex.quote(file.path)}\n" for file in files if file.owner != "root:root"
    )
    return (*files, GuestFile(f"{SPOOL}/run.sh", (owners + script).encode(), "0700"))


def _run_pack(session: Agent, packed: bytes, unpack: str, timeout: float) -> ExecResult:
    """Unpack files by a program that reads them from its standard input, and run the script that is among them."""
    parts = ["umask 022", _TURN, FIXED_PLACES.strip(), unpack, OWN_PLACES, ENVIRONMENT, "cd /root"]
    if len(packed) > _STDIN_LIMIT:
        session.write(_PACK, packed)
        parts.insert(0, f"exec <{_PACK}; rm {_PACK}")
        packed = b""
    run = "\n".join((*parts, "exec </dev/null 2>&1", f". {SPOOL}/run.sh"))
    return session.execute(["/bin/sh", "-ec", run], stdin=packed, timeout=timeout)


def _judge(name: str, title: str, result: ExecResult, log: Path) -> None:
    output = result.stdout + result.stderr
    append(log, f"==> {time.strftime('%Y-%m-%dT%H:%M:%S')} {title} [{result.code}]\n".encode() + output + b"\n")
    if result.code != 0:
        lines = output.decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        shown = "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)
        raise GuestError(
            f"{name}: {title} failed with status {result.code}",
            details=shown,
            hint=f"The whole output: {log}. Mend it and run labctl up again.",
        )
