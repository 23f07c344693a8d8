"""Files and scripts for guests, as texts; tests/integration/plan carries them out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from labctl.errors import UsageError
from labctl.plan.guest import GuestFile, Personality, personality, steps
from labctl.plan.guest_network import network_script
from labctl.plan.model import LabPlan
from labctl.spec.model import FileStep, ScriptStep, ShellStep, UserSpec
from tests.support.labs import plan_of

pytestmark = pytest.mark.unit


@pytest.fixture
def plan() -> LabPlan:
    return plan_of(
        """
        networks: {a: {subnet: 10.1.0.0/24, subnet6: "fd00::/64"}, b: {subnet: 10.2.0.0/24}, wire: {}}
        machines:
          m: {networks: [a, wire]}
          r: {router: true, networks: [a, b]}
        """
    )


def files(found: Personality) -> dict[str, GuestFile]:
    return {file.path: file for file in found.files}


def made(plan: LabPlan, name: str = "m", **changes: object) -> Personality:
    machine = replace(plan.machine(name), **changes)  # type: ignore[arg-type]
    return personality(plan, machine, authorized_keys=("ssh-ed25519 AAAA k",), host_key=("private\n", "public\n"))


def test_only_routers_have_firewall_rules(plan: LabPlan) -> None:
    assert "/etc/labctl/router.nft" in files(made(plan, "r"))
    assert "/etc/labctl/router.nft" not in files(made(plan))
    assert "put 1 ipv4/ip_forward" in network_script(plan, plan.machine("r"))
    assert "put 0 ipv4/ip_forward" in network_script(plan, plan.machine("m"))


def test_rules_are_loaded_before_forwarding_begins(plan: LabPlan) -> None:
    script = network_script(plan, plan.machine("r"))
    assert script.index("nft -f") < script.index("addr add") < script.index("put 1 ipv4/ip_forward")


def test_bare_interfaces_are_just_up_and_sensors_see_everything(plan: LabPlan) -> None:
    script = network_script(plan, plan.machine("m"))
    assert "link set dev eth1 up\n" in script
    assert "dev eth1\n" not in script.replace("addr flush dev eth1\n", "")
    machine = plan.machine("m")
    sensor = replace(machine, interfaces=(machine.interfaces[0], replace(machine.interfaces[1], promiscuous=True)))
    assert "link set dev eth1 up promisc on\n" in network_script(plan, sensor)


def test_nobody_is_told_a_resolver(plan: LabPlan) -> None:
    assert not any("resolv" in path for path in files(made(plan)))
    assert not any(b"nameserver" in file.content for file in made(plan).files)


def test_secrets_are_for_root_only(plan: LabPlan) -> None:
    found = files(made(plan, users=(UserSpec("student", "secret", keys=("ssh-ed25519 BBBB s",)),)))
    secret = [file for file in found.values() if b"secret" in file.content or b"private" in file.content]
    assert {file.path for file in secret} == {"/etc/labctl/passwords", "/etc/ssh/ssh_host_ed25519_key"}
    assert {file.mode for file in secret} == {"0600"}
    assert "secret" not in made(plan, users=(UserSpec("student", "secret"),)).script


def test_the_own_name_comes_first_and_means_an_address_of_the_lab(plan: LabPlan) -> None:
    hosts = files(made(plan))["/etc/hosts"].content.decode().splitlines()
    address = plan.machine("m").interfaces[0].address
    assert address is not None
    assert hosts[2] == f"{address.ip} m"
    assert files(made(plan, interfaces=()))["/etc/hosts"].content.decode().splitlines()[2] == "127.0.1.1 m"


def test_keys_of_another_login_user_go_to_its_home(plan: LabPlan) -> None:
    found = personality(plan, plan.machine("m"), authorized_keys=("k",), host_key=None, login_user="vagrant")
    assert "/root/.ssh/authorized_keys" not in files(found)
    assert "install_keys vagrant /etc/labctl/keys/vagrant" in found.script
    assert "ssh_host" not in "".join(files(found))


@pytest.mark.parametrize(
    "user",
    [
        UserSpec("root:x"),
        UserSpec("-rf"),
        UserSpec("a b"),
        UserSpec("ok", groups=("x,y",)),
        UserSpec("ok", "line\nroot:owned"),
    ],
)
def test_accounts_that_a_guest_cannot_hold_are_refused(plan: LabPlan, user: UserSpec) -> None:
    with pytest.raises(UsageError):
        made(plan, users=(user,))


def test_a_script_is_the_same_each_time_and_starts_few_programs(plan: LabPlan) -> None:
    assert made(plan) == made(plan)
    # one for NICs that have other names than planned, and one for all else
    assert network_script(plan, plan.machine("m")).count("ip -batch - <<END") == 2


def test_steps_become_files_and_programs(plan: LabPlan) -> None:
    content = {"files/a": b"A\0", "files/run.sh": b"#!/bin/sh\n"}
    machine = replace(
        plan.machine("m"),
        steps=(
            FileStep("/etc/a", source="files/a", mode="0600", owner="www-data:adm"),
            FileStep("/etc/b", content="ü"),
            ShellStep("\necho one\necho two\n"),
            ScriptStep("files/run.sh", ("a b", "$(x)")),
        ),
    )
    file, text, shell, script = steps(machine, content.__getitem__)
    assert file.files == (GuestFile("/etc/a", b"A\0", "0600", "www-data:adm"),)
    assert (file.title, file.argv, file.script) == ("file /etc/a", (), "")
    assert text.files[0].content == "ü".encode()
    assert shell.title == "shell echo one"
    assert shell.argv == ("/bin/sh", "-e", shell.files[0].path)
    assert shell.files[0].content == b"\necho one\necho two\n"
    assert script.argv == (script.files[0].path, "a b", "$(x)")
    assert script.script == f"{script.files[0].path} 'a b' '$(x)'"
    assert script.files[0].mode == "0700"
    assert len({step.files[0].path for step in (shell, script)}) == 2


def test_a_step_finds_its_secrets_as_files_for_its_own_time(plan: LabPlan) -> None:
    machine = replace(plan.machine("m"), steps=(ShellStep("true"), FileStep("/etc/b", content="x")), secrets=("flag",))
    shell, file = steps(machine, lambda _: b"", {"flag": "FLAG{x}", "other": "y"})
    assert shell.secrets == (GuestFile("/run/labctl-secrets/flag", b"FLAG{x}", "0600"),)
    assert shell.script.startswith("export LABCTL_SECRETS=/run/labctl-secrets; trap 'rm -rf /run/labctl-secrets' 0; ")
    assert shell.script.endswith(f"/bin/sh -e {shell.files[0].path}")
    assert file.secrets == ()
    with pytest.raises(UsageError, match="the secret flag of m is not known here"):
        steps(machine, lambda _: b"", {})


def test_windows_steps_are_powershell(plan: LabPlan) -> None:
    steps_ = (ShellStep("Get-Date"), ScriptStep("x/setup.ps1", ("-Force",)), ScriptStep("x/tool.exe"))
    machine = replace(plan.machine("m"), os="windows", steps=steps_)
    shell, script, tool = steps(machine, lambda _: b"")
    assert shell.argv[0] == script.argv[0] == "powershell.exe"
    assert shell.files[0].content.startswith(b"$ErrorActionPreference = 'Stop'\r\n")
    assert script.argv[-2:] == (script.files[0].path, "-Force")
    assert tool.argv == (tool.files[0].path,)


def test_a_name_server_is_written_down_only_where_a_way_out_has_one(plan: LabPlan) -> None:
    assert "/etc/resolv.conf" not in files(made(plan))
    found = files(made(plan, resolvers=(IPv4Address("10.1.0.254"),)))["/etc/resolv.conf"]
    assert (found.content, found.mode) == (b"nameserver 10.1.0.254\n", "0644")
