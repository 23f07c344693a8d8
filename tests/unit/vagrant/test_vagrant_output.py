"""What Vagrant and libvirt print, read."""

from __future__ import annotations

import pytest

from labctl.providers.vagrant.command import Said, _hint, _texts
from labctl.providers.vagrant.virsh import DomainNic, read_domain, read_network

pytestmark = pytest.mark.unit


def test_a_line_for_machines_is_read_with_its_escapes() -> None:
    said = Said.of("1424098924,web,ui,info,a%!(VAGRANT_COMMA) b\\nc,d")
    assert said == Said("web", "ui", ("info", "a, b\nc", "d"))


@pytest.mark.parametrize("line", ["", "Warning: something", "a,b,c,d", "1424098924,web", "\x1b[0m1,2,3,4"])
def test_other_lines_are_no_messages(line: str) -> None:
    assert Said.of(line) is None


def test_messages_lose_the_name_of_their_machine_and_control_characters() -> None:
    assert list(_texts("==> web: Booting VM...\n    web: \x1b[32mdone\x07\n\n", "web")) == ["Booting VM...", "[32mdone"]
    assert list(_texts("other: text", "web")) == ["other: text"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("VT-x is disabled in the BIOS for all CPU modes (VERR_VMX_MSR_ALL_VMX_DISABLED)", "in the firmware"),
        ("can't operate in VMX root mode (VERR_VMX_IN_VMX_ROOT_MODE)", "Another hypervisor"),
        ("WHvCapabilityCodeHypervisorPresent is FALSE! (VERR_NEM_NOT_AVAILABLE)", "bcdedit"),
        ("The box 'nobody/nothing' could not be found or\ncould not be accessed", "There is no such box"),
        ("something else went wrong", ""),
    ],
)
def test_known_words_of_an_engine_come_with_what_helps(words: str, hint: str) -> None:
    assert hint in _hint(words)
    assert bool(_hint(words)) == bool(hint)


DOMAIN = """
<domain type='qemu' id='3'>
  <name>labctl.dmz.default.web</name>
  <uuid>c255fcba-c9da-51a4-bb2d-13d3ec424a93</uuid>
  <devices>
    <interface type='network'><mac address='02:AB:00:00:00:01'/><source network='dmz-default-lan-1'/></interface>
    <interface type='network'>
      <mac address='02:ab:00:00:00:02'/><source network='labctl-1-mgmt'/><link state='down'/>
    </interface>
    <interface type='bridge'><mac address='02:ab:00:00:00:03'/><source bridge='br0'/></interface>
    <filesystem type='mount'><source dir='/home/me'/><target dir='share'/></filesystem>
  </devices>
</domain>
"""


def test_a_domain_has_its_nics_with_links_and_what_is_shared() -> None:
    domain = read_domain(DOMAIN, "running")
    assert (domain.name, domain.uuid) == ("labctl.dmz.default.web", "c255fcba-c9da-51a4-bb2d-13d3ec424a93")
    assert domain.nics == (
        DomainNic("02:ab:00:00:00:01", "dmz-default-lan-1", True),
        DomainNic("02:ab:00:00:00:02", "labctl-1-mgmt", False),
        DomainNic("02:ab:00:00:00:03", "bridge ['br0']", True),
    )
    assert domain.shares == ("folder /home/me",)


def test_a_network_says_where_it_leads() -> None:
    closed = """
    <network ipv6='no'><name>m</name><bridge name='b'/><port isolated='yes'/><dns enable='no'/>
    <ip address='10.1.0.1' netmask='255.255.255.0'/></network>
    """
    found = read_network(closed, True)
    assert (found.forward, found.isolated, found.addresses, found.resolver) == ("", True, ("10.1.0.1",), False)
    usual = """
    <network><name>d</name><forward mode='nat'/><bridge name='b'/><ip address='10.1.0.1' netmask='255.255.255.0'/>
    </network>
    """
    found = read_network(usual, False)
    assert (found.forward, found.isolated, found.resolver, found.active) == ("nat", False, True, False)
