"""The management network of a libvirt instance: labctl's own, because Vagrant's lets guests reach each other.

Measured with vagrant-libvirt 0.11.2: over its default network each guest reaches the others' SSH port. But it uses a
network that is there already under the name and address it looks for, and that one may have isolated ports (libvirt
6.1 and later).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from labctl.errors import UsageError
from labctl.plan.model import LabPlan

SYSTEM_URI = "qemu:///system"

_POOL = IPv4Network("10.0.0.0/8")
_PREFIX = 24


@dataclass(frozen=True, slots=True)
class ManagementNetwork:
    """Its name in libvirt, its subnet, and the file with its definition."""

    name: str
    subnet: str
    file: str
    xml: str


def management(plan: LabPlan) -> ManagementNetwork:
    """The management network of an instance. Raises UsageError where no subnet is left."""
    name = f"labctl-{plan.lab_key}-mgmt"
    subnet = _subnet(plan)
    host, last = subnet[1], subnet[-2]
    # The bridge needs a name of its own of at most 15 characters (IFNAMSIZ).
    xml = f"""\
<network ipv6='no'>
  <name>{name}</name>
  <bridge name='lab{plan.lab_key}' stp='on' delay='0'/>
  <port isolated='yes'/>
  <dns enable='no'/>
  <ip address='{host}' netmask='{subnet.netmask}'>
    <dhcp>
      <range start='{subnet[2]}' end='{last}'/>
    </dhcp>
  </ip>
</network>
"""
    return ManagementNetwork(name, str(subnet), "management-network.xml", xml)


def _subnet(plan: LabPlan) -> IPv4Network:
    """A /24 of its own: the host has an address in it, so two instances on one host must not share one.

    Which one follows from the instance's key; a subnet that a network of the lab uses is passed over.
    """
    taken = [network.subnet for network in plan.networks if network.subnet is not None]
    count = 1 << (_PREFIX - _POOL.prefixlen)
    first = int(plan.lab_key, 16) % count
    for step in range(count):
        base = int(_POOL.network_address) + ((first + step) % count << (32 - _PREFIX))
        candidate = IPv4Network((base, _PREFIX))
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise UsageError(
        "the lab's networks leave no room in 10.0.0.0/8 for the management network", hint="Use smaller subnets."
    )
