"""Programs in a template's memory that wait for what its copies are told.

To start a program costs an emulated guest a tenth of a second: it has to be read, linked and translated. A copy finds a
shell, a Perl and two ``ip`` that were started before its memory was kept. They take one message, carry it out and end;
where they are not there, or cannot, a copy is told by programs of its own. And the Python of verifications waits, which
``labctl.inside`` tells of.
"""

from __future__ import annotations

import re
import shlex

from labctl import inside
from labctl.errors import GuestError
from labctl.providers.agent import GuestAgent, RefusedError, turns
from labctl.providers.base import ExecResult
from labctl.providers.qemu import pack
from labctl.providers.qemu.settling import ENVIRONMENT, SPOOL

MESSAGE_LIMIT = 48 << 10
"""Of a message, in bytes: it has to fit into a pipe of the guest's, which holds 64 KiB."""
_DOOR, _SAID = f"{SPOOL}/door", f"{SPOOL}/said"
_SHELL, _IPS = f"{SPOOL}/waiting.sh", (f"{SPOOL}/ip1", f"{SPOOL}/ip2")
_CANNOT = 213
_ENDED = re.compile(rb"\nlabctl: ended (\d{1,3})\n\Z")
_ANSWER_LIMIT = 256 << 10
_PIECE = 16 << 10
# Nobody else comes by this door: a labctl that was killed may have left half a message in it. RNDRESEEDCRNG is of
# random(4), and number 227 of a 64-bit x86 is clock_settime. The clock of the hardware says how late the message is.
_RENEW = r"""
unlink "$door.opens";
$/ = "\0";
my ($now, $nano, $seed) = (<STDIN> // "") =~ m{^(\d+)\.(\d{9}) ([0-9a-f]+)\0\z} or die "labctl: no message\n";
unlink $door;
alarm 60;
open(RANDOM, "+<", "/dev/urandom") && syswrite(RANDOM, pack("H*", $seed)) && ioctl(RANDOM, 0x5207, 0)
  or die "labctl: no random numbers: $!\n";
if (open(my $clock, "<", "/sys/class/rtc/rtc0/since_epoch")) {
  my $hardware = <$clock> // 0;
  $now = 0 + $hardware if $hardware - $now > 1 && $hardware - $now < 300;
}
syscall(227, 0, pack("q2", $now, $nano)) == 0 or die "labctl: no clock: $!\n";
"""
_PERL = f"my $door = '{_DOOR}';{_RENEW}{pack.UNPACK}"
# Each ``ip`` holds no end that another one's input could still come from. No script that follows has names like these.
_WAIT = f"""\
exec 8<>{_IPS[0]} 9<>{_IPS[1]}
ip -batch - <{_IPS[0]} 8>&- 9>&- & labctl_first=$!
ip -batch - <{_IPS[1]} 8>&- 9>&- & labctl_second=$!
labctl_left=2
labctl_feed() {{ while IFS= read -r labctl_line || [ -n "$labctl_line" ]; do printf '%s\\n' "$labctl_line"; done; }}
ip() {{
  case $*-$labctl_left in
    '-batch --2') labctl_left=1; labctl_feed >&8; exec 8>&-; wait "$labctl_first" ;;
    '-batch --1') labctl_left=0; labctl_feed >&9; exec 9>&-; wait "$labctl_second" ;;
    *) command ip "$@" ;;
  esac
}}
perl -e {shlex.quote(_PERL)} <>{_DOOR} 8>&- 9>&- || exit {_CANNOT}
exec </dev/null
echo $$ >{SPOOL}/pid
. {SPOOL}/run.sh
"""

# Programs that lie at the same addresses are translated once: the emulator goes by those.
START = f"""\
read -r randomize </proc/sys/kernel/randomize_va_space
echo 0 >/proc/sys/kernel/randomize_va_space
if [ "$(uname -m)" = x86_64 ] && perl -e 'exit(8 != length pack "p", "")' &&
  mkfifo -m 0600 {_DOOR} {_IPS[0]} {_IPS[1]}
then
  (umask 077; printf '%s' {shlex.quote(_WAIT)} >{_SHELL})
  : >{_DOOR}.opens
  (
    {ENVIRONMENT}
    umask 022
    cd /root
    sh -e {_SHELL}
    printf '\\nlabctl: ended %s\\n' $?
  ) </dev/null >{_SAID} 2>&1 &
  tries=100
  until [ ! -e {_DOOR}.opens ] || [ "$tries" = 0 ]; do sleep 0.1; tries=$((tries - 1)); done
fi
if command -v python3 >/dev/null; then
  (cd / && printf '%s' {shlex.quote(inside.standby(inside.door()))} | python3 -IS -) >/dev/null 2>&1 &
  tries=100
  until [ -e {inside.door()} ] || [ "$tries" = 0 ]; do sleep 0.1; tries=$((tries - 1)); done
fi
echo "$randomize" >/proc/sys/kernel/randomize_va_space
"""
"""Shell text for a template's guest, after all else."""


def tell(session: GuestAgent, now: float, seed: bytes, files: bytes, *, timeout: float) -> ExecResult | None:
    """Have a copy take random numbers, the time and files, and run the one that is ``run.sh`` in SPOOL.

    now: seconds since the epoch. files: frames, as ``pack.framed`` makes them. timeout: seconds for all of it. Gives
    None where nobody waits or those who do cannot; then nothing but the files may have changed. Raises GuestError.
    """
    message = f"{now:.9f} {seed.hex()}\0".encode() + files + pack.END
    if len(message) > MESSAGE_LIMIT:
        return None
    try:
        session.write_over(_DOOR, message)
    except RefusedError:
        return None
    handle = session.call("guest-file-open", path=_SAID, mode="r")
    try:
        result = _heard(session, handle, timeout)
    finally:
        session.call("guest-file-close", handle=handle)
    return None if result.code == _CANNOT else result


def _heard(session: GuestAgent, handle: int, timeout: float) -> ExecResult:
    said = b""
    for _ in turns(timeout):
        said += session.read_on(handle, _PIECE)
        if ended := _ENDED.search(said):
            return ExecResult(int(ended[1]), said[: ended.start()], b"")
        if len(said) > _ANSWER_LIMIT:
            raise GuestError("the guest says more than it was asked for")
        if not session.alive():
            raise GuestError("what the guest was told was given up")
    raise GuestError(f"the guest did not do within {timeout:g} s what it was told")
