"""The plan as a whole: names, waves, packages, who knows whose name, and what it does not depend on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from labctl.errors import UsageError
from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.spec.model import FileStep, ShellStep
from tests.support.labs import plan_of, spec_of

pytestmark = pytest.mark.unit


def hosts(plan: LabPlan, machine: str) -> dict[str, tuple[str, ...]]:
    return dict(plan.machine(machine).hosts)


def test_machines_start_after_all_copies_of_what_they_depend_on() -> None:
    plan = plan_of(
        """
        networks: {a: {subnet: 10.0.0.0/24}}
        machines:
          late: {networks: [a], depends_on: [db, first]}
          db: {count: 2, networks: [a], depends_on: [first]}
          first: {networks: [a]}
          free: {networks: [a]}
        """
    )
    assert plan.waves == (("first", "free"), ("db-1", "db-2"), ("late",))
    assert plan.machine("late").depends_on == ("db-1", "db-2", "first")


def test_a_circle_of_dependencies_is_an_error() -> None:
    spec = spec_of("networks: {a: {subnet: 10.0.0.0/24}}\nmachines: {x: {networks: [a]}, y: {networks: [a]}}")
    machines = {
        "x": replace(spec.machines["x"], depends_on=("y",)),
        "y": replace(spec.machines["y"], depends_on=("x",)),
    }
    with pytest.raises(UsageError, match="these machines wait for each other: x, y"):
        build(replace(spec, machines=machines))


def test_the_management_path_overlaps_no_network() -> None:
    text = "networks: {a: {subnet: SUBNET}}\nmachines: {m: {networks: [a]}}"
    assert str(plan_of(text.replace("SUBNET", "10.9.0.0/24")).management.guest) == "10.0.2.15/24"
    moved = plan_of(text.replace("SUBNET", "10.0.0.0/16")).management
    assert [str(a) for a in (moved.subnet, moved.host, moved.dns, moved.guest)] == [
        "10.255.255.0/24",
        "10.255.255.2",
        "10.255.255.3",
        "10.255.255.15/24",
    ]
    assert str(plan_of(text.replace("SUBNET", "10.0.0.0/8")).management.subnet) == "192.168.255.0/24"


def test_packages_go_into_the_image_and_the_rest_stays_in_order() -> None:
    plan = plan_of(
        """
        networks: {a: {subnet: 10.0.0.0/24}}
        machines:
          m:
            networks: [a]
            provision:
              - packages: [nginx-light, curl]
              - shell: "true"
              - packages: [curl, jq]
              - file: {content: hello, target: /etc/motd}
        """
    )
    machine = plan.machine("m")
    assert machine.packages == ("nginx-light", "curl", "jq")
    assert machine.steps == (ShellStep("true"), FileStep("/etc/motd", content="hello"))


def test_machines_know_the_names_of_those_they_may_reach_and_no_others() -> None:
    plan = plan_of(
        """
        networks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}}
        hosts: {10.2.0.9: www.example.test}
        machines:
          alice: {networks: {a: 10.1.0.5}, hosts: {10.1.0.77: ghost}}
          bob: {networks: {b: 10.2.0.6}}
          secret: {networks: {b: 10.2.0.7}}
          r: {router: true, networks: {a: 10.1.0.1, b: 10.2.0.1}}
        policy: [{from: alice, to: bob, ports: tcp/80}, {from: alice, to: r, ports: tcp/80}]
        """
    )
    assert hosts(plan, "alice") == {
        "10.1.0.77": ("ghost",),
        "10.2.0.9": ("www.example.test",),
        "10.2.0.6": ("bob",),
        "10.1.0.1": ("r",),  # its address on the shared network only
    }
    assert ("alice",) not in hosts(plan, "bob").values()


def test_a_machine_that_is_to_find_the_others_is_told_no_names_but_those_declared() -> None:
    plan = plan_of(
        """
        networks: {a: {subnet: 10.1.0.0/24}}
        hosts: {10.2.0.9: www.example.test}
        machines:
          alice: {networks: {a: 10.1.0.5}, names: false, hosts: {10.1.0.77: ghost}}
          bob: {networks: {a: 10.1.0.6}}
        """
    )
    assert hosts(plan, "alice") == {"10.1.0.77": ("ghost",), "10.2.0.9": ("www.example.test",)}
    assert hosts(plan, "bob")["10.1.0.5"] == ("alice",)


def test_names_on_the_host_are_tame_unique_and_short() -> None:
    long = "n" + "x" * 62
    plan = plan_of(
        f"""
        networks: {{{long}: {{}}, b-c: {{}}, c: {{}}}}
        machines: {{m: {{networks: [{long}, b-c, c]}}}}
        """,
        instance="Student_07.b",
    )
    wires = [network.wire for network in plan.networks]
    assert all(re.fullmatch(r"[a-z0-9-]{1,63}", wire) for wire in wires)
    assert len({*wires, *(network.key for network in plan.networks)}) == 6
    assert all(re.fullmatch(r"[0-9a-f]{8}", key) for key in (plan.lab_key, *(n.key for n in plan.networks)))


def test_names_that_run_together_stay_apart() -> None:
    text = "networks: {NET: {}}\nmachines: {m: {networks: [NET]}}"
    one, two = plan_of(text.replace("NET", "b-c"), instance="a"), plan_of(text.replace("NET", "c"), instance="a-b")
    assert one.networks[0].wire != two.networks[0].wire


def test_two_builds_are_equal() -> None:
    spec = spec_of("networks: {a: {subnet: 10.0.0.0/24}}\nmachines: {m: {count: 5, networks: [a]}}")
    assert build(spec) == build(spec)
    assert repr(build(spec)) == repr(build(spec))
