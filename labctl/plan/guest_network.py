"""The script that sets up a Linux guest's NICs: run at first boot, at every boot, and whenever the lab is configured.

It finds NICs by MAC, because guests name them as they like, and starts as few programs as it can: in an emulated guest
each costs a fifth of a second. Settings of the kernel are written to /proc, everything else goes to one ``ip -batch``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan
from labctl.plan.topology import FAMILIES

RULES = "/etc/labctl/router.nft"
_FIRST_TABLE = 100
_FIRST_PREFERENCE = 1000

_FIND = """\
# Gives every NIC its planned name, in two steps, so that two may swap theirs. A device on top of others, such as a
# bridge or a VLAN, may have the MAC of one of them and is none of ours.
name_nics() {
  moves='' seen=' '
  for path in /sys/class/net/*; do
    nic=${path##*/}
    set -- "$path"/lower_*
    if [ -e "$1" ] || ! read -r mac <"$path/address"; then continue; fi
    planned "$mac"
    if [ -n "$want" ]; then seen="$seen$want "; fi
    if [ -z "$want" ] && is_planned "$nic"; then want=x$nic; fi
    if [ -n "$want" ] && [ "$want" != "$nic" ]; then moves="$moves $nic:$want"; fi
  done
  [ -n "$moves" ] || return 0
  number=0 first='' second=''
  for move in $moves; do
    number=$((number + 1))
    first="${first}link set dev ${move%%:*} down
link set dev ${move%%:*} name labctl$number
"
    second="${second}link set dev labctl$number name ${move#*:}
"
  done
  ip -batch - <<END
$first$second
END
}

# NICs may appear a moment after this starts. That of the management path is missing in a sealed lab.
tries=50
while :; do
  name_nics
  missing=''
  for nic in $needed; do
    case $seen in *" $nic "*) ;; *) missing="$missing $nic" ;; esac
  done
  [ -n "$missing" ] || break
  tries=$((tries - 1))
  if [ "$tries" = 0 ]; then
    echo "labctl: these planned NICs are not there:$missing" >&2
    exit 1
  fi
  sleep 0.2
done
"""

_PUT = """\
# A setting that the kernel does not have is not needed.
put() {
  if [ -e "/proc/sys/net/$2" ]; then echo "$1" >"/proc/sys/net/$2"; fi
}
"""


def network_script(plan: LabPlan, machine: MachinePlan) -> str:
    """The text of ``/etc/labctl/network.sh``; may be run or sourced by a POSIX shell with ``set -eu``."""
    parts = [
        "# Written by labctl from the lab's plan; replaced whenever the lab is configured.",
        "set -eu",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "export PATH",
        "",
        *_naming(plan, machine),
        _FIND,
        _PUT,
        *_filter(machine),
        *_settings(plan, machine),
        "",
        *_forget_rules(),
        *_addressing(plan, machine),
        *_forwarding(machine),
    ]
    return "\n".join(parts) + "\n"


def _naming(plan: LabPlan, machine: MachinePlan) -> Iterator[str]:
    nics = [(interface.mac, interface.device) for interface in machine.interfaces]
    nics.append((machine.management_mac, plan.management.device))
    yield f"needed='{' '.join(i.device for i in machine.interfaces)}'"
    yield "planned() {"
    yield "  case $1 in"
    yield from (f"    {mac}) want={device} ;;" for mac, device in nics)
    yield "    *) want='' ;;"
    yield "  esac"
    yield "}"
    yield "is_planned() {"
    yield f"  case $1 in {' | '.join(device for _, device in nics)}) return 0 ;; esac"
    yield "  return 1"
    yield "}"
    yield ""


def _filter(machine: MachinePlan) -> Iterator[str]:
    """A router filters before it forwards; what was one and is none any more stops filtering."""
    if machine.router:
        yield f"nft -f {RULES}"
        return
    yield "put 0 ipv4/ip_forward"
    yield "put 0 ipv6/conf/all/forwarding"
    yield f"if [ -e {RULES} ]; then"
    yield "  nft delete table inet labctl || :"
    yield f"  rm -f {RULES}"
    yield "fi"


def _settings(plan: LabPlan, machine: MachinePlan) -> Iterator[str]:
    # an address is asked for and answered on its own network only, also where one machine sits twice on a network
    yield "put 1 ipv4/conf/all/arp_ignore"
    yield "put 2 ipv4/conf/all/arp_announce"
    for interface in machine.interfaces:
        device = interface.device
        yield f"put 0 ipv6/conf/{device}/disable_ipv6"
        yield f"put 0 ipv6/conf/{device}/accept_ra"
        yield f"put 0 ipv6/conf/{device}/accept_dad"
        if machine.router:
            yield f"put 1 ipv4/conf/{device}/rp_filter"
            yield f"put 0 ipv4/conf/{device}/send_redirects"
    yield f"put 1 ipv6/conf/{plan.management.device}/disable_ipv6"
    if machine.router:
        yield "put 1 ipv4/conf/all/rp_filter"
        yield "put 0 ipv4/conf/all/send_redirects"


def _forget_rules() -> Iterator[str]:
    """Routes go when their device goes down; rules stay until they are deleted."""
    for family in FAMILIES:
        undo = _undo(family)
        yield f"if [ -e {undo} ]; then"
        yield f"  ip -{family} -force -batch {undo} || :"
        yield f"  rm -f {undo}"
        yield "fi"


def _undo(family: Literal[4, 6]) -> str:
    return f"/run/labctl-rules{family}"


def _addressing(plan: LabPlan, machine: MachinePlan) -> Iterator[str]:
    """Down and up again drops all routes and gives a new link-local address where the MAC has changed."""
    management = plan.management
    yield "mgmt=''"
    yield f'case $seen in *" {management.device} "*)'
    yield f"  mgmt='{_newline(_link(management.device, (str(management.guest),)))}'"
    yield "esac"
    yield "ip -batch - <<END"
    for interface in machine.interfaces:
        yield from _link(interface.device, [str(seat) for seat in _seats(interface)], interface.promiscuous)
    yield from (f"route add {r.target} via {r.gateway} dev {r.device}" for r in machine.routes)
    for family in FAMILIES:
        yield from _tables(machine, family)
    yield "$mgmt"
    yield "END"
    for family in FAMILIES:
        rules = list(_rules(machine, family))
        if rules:
            yield f"ip -{family} -batch - <<END"
            yield from (f"rule add pref {_FIRST_PREFERENCE + n} {rule}" for n, rule in enumerate(rules))
            yield "END"
            undo = _newline(f"rule del pref {_FIRST_PREFERENCE + n}" for n in range(len(rules)))
            yield f"echo '{undo}' >{_undo(family)}"


def _seats(interface: InterfacePlan) -> Iterator[object]:
    return (seat for seat in (interface.address, interface.address6) if seat is not None)


def _link(device: str, addresses: Sequence[str], promiscuous: bool = False) -> Iterator[str]:
    yield f"link set dev {device} down"
    yield f"addr flush dev {device}"
    yield f"link set dev {device} up" + (" promisc on" if promiscuous else "")
    for address in addresses:
        # without duplicate detection an IPv6 address works at once; the plan has no duplicates
        yield f"addr add {address} dev {device}" + (" nodad" if ":" in address else " brd +")


def _tables(machine: MachinePlan, family: Literal[4, 6]) -> Iterator[str]:
    """A table per device: on hosts with several addressed devices complete, on routers only what differs from main."""
    for table, interface in _own_tables(machine, family):
        seat = interface.seat(family)
        if seat is not None and not machine.router:
            source = f" src {seat.ip}" if family == 4 else ""
            yield f"route add {seat.network} dev {interface.device}{source} table {table}"
        for route in machine.source_routes:
            if route.device == interface.device and route.target.version == family:
                yield f"route add {route.target} via {route.gateway} dev {route.device} table {table}"


def _rules(machine: MachinePlan, family: Literal[4, 6]) -> Iterator[str]:
    """For packets that have the device's address already, and for programs that are bound to the device."""
    for table, interface in _own_tables(machine, family):
        seat = interface.seat(family)
        if seat is not None:
            yield f"from {seat.ip} lookup {table}"
        yield f"oif {interface.device} lookup {table}"


def _own_tables(machine: MachinePlan, family: Literal[4, 6]) -> Iterator[tuple[int, InterfacePlan]]:
    addressed = [i for i in machine.interfaces if i.seat(family) is not None]
    used = {route.device for route in machine.source_routes if route.target.version == family}
    for table, interface in enumerate(machine.interfaces, _FIRST_TABLE):
        if interface.device in used or (interface in addressed and len(addressed) > 1 and not machine.router):
            yield table, interface


def _forwarding(machine: MachinePlan) -> Iterator[str]:
    if machine.router:
        yield "put 1 ipv4/ip_forward"
        yield "put 1 ipv6/conf/all/forwarding"


def _newline(lines: Iterator[str]) -> str:
    return "\n".join(lines)
