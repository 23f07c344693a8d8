"""What is done in a template's guest before it is kept, so that its copies need not do it: shell text.

Under emulation each program that a guest starts costs a tenth of a second, and much more when it comes from the disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from labctl.plan.guest import NETWORK_AT_BOOT
from labctl.providers.marks import MEMORY, ON_DISK, READY

SPOOL = "/run/labctl"
"""Where a guest is given its orders; for root only."""
ENVIRONMENT = "export HOME=/root USER=root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What an agent's own environment lacks and scripts expect: shell text."""
ANY_HOST_KEY = "/run/labctl-any-host-key"
"""Is there where the guest's SSH server was seen to read its host key anew for each connection."""

# Services are up, nothing is left to do at the boot, and the programs by which a machine gets its name, its addresses
# and its probes are in memory.
_WARM = f"""\
tries=600
until [ -s /run/sshd.pid ] || [ "$tries" = 0 ]; do sleep 0.1; tries=$((tries - 1)); done
mkdir -p -m 0700 {SPOOL}
timeout 60 systemctl is-system-running --wait
for program in 'ip -batch /dev/null' 'perl -e 0' 'tar --version' 'nft --version' 'python3 -IS -c 0' 'date' \\
  'ln --version' 'install --version' 'sleep 0' 'chown --version' 'rm --version' 'cat /dev/null'; do
  $program
done >/dev/null 2>&1
"""

# Where each program lies at addresses of its own, the emulator translates the same libraries for each of them anew.
_RANDOMIZE = "/proc/sys/kernel/randomize_va_space"
_RANDOMIZED = "/run/labctl-randomized"
FIXED_PLACES = f"""\
randomize=''
if [ -e {ANY_HOST_KEY} ] && read -r randomize <{_RANDOMIZED}; then echo 0 >{_RANDOMIZE}; fi
"""
"""Has the programs that a shell starts from now on lie at the same addresses. A service is none of them."""
OWN_PLACES = f"""[ -z "$randomize" ] || echo "$randomize" >{_RANDOMIZE}"""
"""Ends that."""

# A server that were told of another key would start anew, which takes an emulated guest a second. Most need not be
# told, as they start a program for each connection, which reads the key: that is tried with a key of no use.
_TRY_KEYS = f"""\
key=/etc/ssh/ssh_host_ed25519_key
if [ -s /run/sshd.pid ] && command -v ssh-keygen >/dev/null && command -v ssh-keyscan >/dev/null; then
  rm -f $key $key.pub
  ssh-keygen -q -t ed25519 -N '' -C template -f $key
  read -r _ public _ <$key.pub
  case $(ssh-keyscan -T 60 -t ed25519 127.0.0.1 2>/dev/null) in *" $public") : >{ANY_HOST_KEY} ;; esac
fi
"""


def script(names: Sequence[tuple[str, str]]) -> str:
    """For a guest that has booted. names: the MAC of each NIC, and what it is called in every copy."""
    marks = f"{READY}\n[ ! -e {ON_DISK} ] || echo none >{MEMORY}\n"
    randomized = f"read -r randomize <{_RANDOMIZE}; echo $randomize >{_RANDOMIZED}\n"  # its one line does not end
    return "".join((_WARM, _naming(names), f"{NETWORK_AT_BOOT}\n", _TRY_KEYS, randomized, marks, "sync\n"))


def _naming(names: Sequence[tuple[str, str]]) -> str:
    """In two steps, so that two may swap theirs. The guest's device manager looks at each name that changes."""
    cases = "".join(f"    {mac}) step=labctl{number} name={name} ;;\n" for number, (mac, name) in enumerate(names))
    return f"""\
first='' second=''
for path in /sys/class/net/*; do
  read -r mac <"$path/address" || continue
  case $mac in
{cases}    *) continue ;;
  esac
  first="${{first}}link set dev ${{path##*/}} down
link set dev ${{path##*/}} name $step
"
  second="${{second}}link set dev $step name $name
"
done
[ -z "$first" ] || printf '%s' "$first$second" | ip -batch -
udevadm settle --timeout=60 || :
"""
