"""Networks of a libvirt instance. That of management is labctl's own, because Vagrant's lets guests reach each other.

Measured with vagrant-libvirt 0.11.2: over its default network each guest reaches the others' SSH port. But it uses a
network that is there already under the name and address it looks for, and that one may have isolated ports (libvirt
6.1 and later).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv6Address

from labctl.plan.model import InterfacePlan, LabPlan, MachinePlan, NetworkPlan

SYSTEM_URI = "qemu:///system"


@dataclass(frozen=True, slots=True)
class ManagementNetwork:
    """Its name in libvirt, its subnet, and the file with its definition."""

    name: str
    subnet: str
    file: str
    xml: str


def management(plan: LabPlan) -> ManagementNetwork:
    """The management network of an instance, in which each guest always gets the same address."""
    name = f"labctl-{plan.lab_key}-mgmt"
    subnet, host = plan.management.subnet, plan.management.host
    xml = f"""\
<network ipv6='no'>
  <name>{name}</name>
  <bridge name='{management_bridge(plan)}' stp='on' delay='0'/>
  <port isolated='yes'/>
  <dns enable='no'/>
  <ip address='{host}' netmask='{subnet.netmask}'>
    <dhcp>
      <range start='{subnet[1]}' end='{subnet[-2]}'/>
{"".join(f"      {lease(machine)}{chr(10)}" for machine in plan.machines)}    </dhcp>
  </ip>
</network>
"""
    return ManagementNetwork(name, str(subnet), "management-network.xml", xml)


def management_bridge(plan: LabPlan) -> str:
    """The management network's device on the host. Its name has at most 15 characters (IFNAMSIZ)."""
    return f"lab{plan.lab_key}"


def wire_bridge(network: NetworkPlan) -> str:
    """The device on the host of a network of the lab."""
    return f"lb{network.key}"


def tap(plan: LabPlan, interface: InterfacePlan) -> str:
    """The device on the host that is the other end of a NIC's cable; the name is nobody else's, also of later plans."""
    return "lt" + hashlib.sha256(f"{plan.lab_key} {interface.mac}".encode()).hexdigest()[:12]


def host_table(network: str) -> str:
    """The name of the tables with the host's own filter for a management network of this name."""
    return network.replace("-", "_")


def host_filter(plan: LabPlan) -> str:
    """Input of ``nft -f -`` that closes this host to its guests.

    On the management network they get an address and answer, and begin nothing. On the lab's networks the host is not
    there, which having no address on a bridge does not bring about: Linux takes packets for any of its addresses on any
    device, and answers ARP for them. And it speaks on the guests' cables: each tap gets an IPv6 address of its own when
    libvirt switches it on, and what the host sends by it, as looking for routers, goes to the guest past the bridge. A
    libvirt network filter would not do: it stands before bridges only where
    br_netfilter is switched on.
    """
    table, device = host_table(management(plan).name), management_bridge(plan)
    wires = ", ".join(f'"{wire_bridge(network)}"' for network in plan.networks)
    every = ", ".join(filter(None, (f'"{device}"', wires)))
    # Where br_netfilter is on, as on hosts with Docker, frames that stay on a bridge come by here too.
    crossing = "".join(
        f"    iifname {bridge} oifname != {bridge} drop\n    oifname {bridge} iifname != {bridge} drop\n"
        for bridge in every.split(", ")
    )
    taps = ", ".join(f'"{tap(plan, interface)}"' for machine in plan.machines for interface in machine.interfaces)
    own = ", ".join(["::", *(_tap_address(machine.management_mac) for machine in plan.machines)])
    saying = f"""\
  chain output {{
    type filter hook output priority -10; policy accept;
    {f"oifname {{ {taps} }} drop" if taps else ""}
    oifname "vnet*" ip6 saddr {{ {own} }} drop
  }}
"""
    arp = f"""\
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname {{ {wires} }} drop
  }}
"""
    return f"""\
table inet {table}
delete table inet {table}
table inet {table} {{
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname "{device}" ct state established,related accept
    iifname "{device}" udp sport 68 udp dport 67 accept
    iifname {{ {every} }} drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
{crossing}  }}
{saying}}}
table arp {table}
delete table arp {table}
table arp {table} {{
{arp if wires else ""}}}
"""


def _tap_address(mac: str) -> str:
    """The IPv6 address that the kernel gives the host's end of a management NIC's cable (RFC 4291, appendix A).

    Vagrant cannot name that device; libvirt calls it ``vnet…`` and gives it the guest's MAC with 0xfe in front.
    """
    rest = bytes.fromhex(mac.replace(":", ""))[1:]
    return str(IPv6Address(bytes.fromhex("fe80000000000000fc") + rest[:2] + b"\xff\xfe" + rest[2:]))


def lease(machine: MachinePlan) -> str:
    """A guest's entry in the management network's list of addresses."""
    if machine.management_address is None:
        raise ValueError(f"the plan was not made for libvirt: {machine.name} has no management address")
    return f"<host mac='{machine.management_mac}' ip='{machine.management_address.ip}'/>"


def wire(network: NetworkPlan) -> str:
    """The definition of a network of the lab: a bridge without an address of the host, and with no name or DHCP server.

    ``ipv6='yes'`` lets guests speak IPv6 to each other, as they do on every wire. On one with ``peers: false`` libvirt
    isolates every port as it plugs it in, routers' too; those are opened afterwards, so that whoever starts a machine
    and whatever fails in between leaves the wire too closed, and never too open.
    """
    apart = "" if network.peers else "  <port isolated='yes'/>\n"
    return f"""\
<network ipv6='yes'>
  <name>{network.wire}</name>
  <bridge name='{wire_bridge(network)}' stp='on' delay='0'/>
{apart}</network>
"""


def wire_file(network: NetworkPlan) -> str:
    """The file beside a Vagrantfile with the definition of a network that vagrant-libvirt would make without it."""
    return f"network-{network.name}.xml"


def opened(plan: LabPlan, machine: MachinePlan) -> tuple[str, ...]:
    """The devices of a router's NICs on networks with ``peers: false``: their ports are opened once they are there."""
    return tuple(
        tap(plan, interface)
        for interface in machine.interfaces
        if not plan.network(interface.network).peers and not interface.isolated
    )
