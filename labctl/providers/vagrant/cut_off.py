"""Programs in a sealed machine that has no guest agent: begun before its cable is pulled, collected after.

For the time that it takes to start a program and to fetch what it said, the machine's management NIC is plugged in; the
program waits in the guest until the NIC has no carrier. Works by plain SSH, with a shell and util-linux in the guest.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from labctl.errors import GuestError
from labctl.providers.base import ExecResult

_REACH_SECONDS = 90.0  # a guest whose NIC was just plugged in may need a while to be there again
_POLL_SECONDS = 1.0
_PATIENCE = 3.0  # times what it took to start a program, a slow guest is left alone before anybody looks
_NOT_YET = 99

# Arguments: a name for this program, the management NIC's MAC, the program's words. The outer shell ends at once.
_BEGIN = """\
d=/run/labctl-$1 mac=$2
shift 2
umask 077
mkdir -p "$d"
cat >"$d/in"
for path in /sys/class/net/*; do
  read -r found <"$path/address" && [ "$found" = "$mac" ] && nic=$path
done
[ -n "${nic-}" ] || exit 1
export d nic
setsid sh -c '
  tries=600
  while read -r carrier <"$nic/carrier" && [ "$carrier" != 0 ] && [ "$tries" -gt 0 ]; do
    sleep 0.1
    tries=$((tries - 1))
  done
  if [ "$tries" -gt 0 ]; then
    "$@" <"$d/in" >"$d/out" 2>"$d/err"
    echo $? >"$d/status"
  else
    : >"$d/out"
    echo "the cable was not pulled" >"$d/err"
    echo 125 >"$d/status"
  fi
  mv "$d/status" "$d/code"
' labctl "$@" </dev/null >/dev/null 2>&1 &
"""
_COLLECT = f"""\
d=/run/labctl-$1
[ -e "$d/code" ] || exit {_NOT_YET}
cat "$d/code"
wc -c <"$d/out"
cat "$d/out" "$d/err"
rm -rf "$d"
"""


class Execute(Protocol):
    """Runs a program in the machine over SSH. Raises GuestError, also where there is no connection."""

    def __call__(self, argv: Sequence[str], *, stdin: bytes, timeout: float) -> ExecResult: ...


def run(
    execute: Execute,
    plug: Callable[[bool], None],
    mac: str,
    argv: Sequence[str],
    *,
    stdin: bytes,
    seconds: float,
    timeout: float,
) -> ExecResult:
    """Run a program in a machine while its cable is out; it is out afterwards, whatever happens.

    plug: plugs the cable in or pulls it. mac: of the management NIC. seconds: how long the program is left alone before
    anybody looks, at the least; timeout: when it is given up. Raises GuestError, also where the program was still at
    work when somebody looked: what it says then is not of a machine that is cut off.
    """
    name = secrets.token_hex(6)
    began = time.monotonic()
    deadline = began + timeout + 2 * _REACH_SECONDS
    _plugged(execute, plug, ["sh", "-c", _BEGIN, "labctl", name, mac, *argv], stdin)
    left_alone, disturbed = max(seconds, _PATIENCE * (time.monotonic() - began)), False
    while True:
        time.sleep(left_alone)
        said = _plugged(execute, plug, ["sh", "-c", _COLLECT, "labctl", name], b"")
        if said.code != _NOT_YET:
            break
        if time.monotonic() > deadline:
            raise GuestError(f"{argv[0]} did not end within {timeout:g} s in the guest")
        left_alone, disturbed = 2 * left_alone, True
    if disturbed:
        raise GuestError(f"{argv[0]} took so long in the guest that the cable was put in while it was at work")
    return _read(said)


def _plugged(execute: Execute, plug: Callable[[bool], None], argv: Sequence[str], stdin: bytes) -> ExecResult:
    """Run a short program with the cable in. Raises GuestError."""
    deadline = time.monotonic() + _REACH_SECONDS
    try:
        plug(True)
        while True:
            try:
                said = execute(argv, stdin=stdin, timeout=_REACH_SECONDS)
                break
            except GuestError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
    finally:
        plug(False)
    if said.code not in (0, _NOT_YET):
        raise GuestError(
            "a program could not be started in the guest", details=said.stderr[-500:].decode(errors="replace")
        )
    return said


def _read(said: ExecResult) -> ExecResult:
    code, _, rest = said.stdout.partition(b"\n")
    size, _, output = rest.partition(b"\n")
    try:
        return ExecResult(int(code), output[: int(size)], output[int(size) :])
    except ValueError as error:
        raise GuestError("what the guest says of a program makes no sense", details=repr(said.stdout[:200])) from error
