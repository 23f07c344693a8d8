"""Who gets which address and MAC, and who keeps it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from labctl.errors import UsageError
from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.spec.model import InterfaceSpec, LabSpec, MachineSpec
from tests.support.labs import plan_of, spec_of

pytestmark = pytest.mark.unit


def addresses(plan: LabPlan, family: int = 4) -> dict[str, str]:
    seats = {
        f"{m.name}.{i.device}": i.address if family == 4 else i.address6 for m in plan.machines for i in m.interfaces
    }
    return {name: str(seat.ip) for name, seat in seats.items() if seat is not None}


def appended(spec: LabSpec, *machines: MachineSpec) -> LabSpec:
    return replace(spec, machines={**spec.machines, **{m.name: m for m in machines}})


def inserted(spec: LabSpec, *machines: MachineSpec) -> LabSpec:
    return replace(spec, machines={**{m.name: m for m in machines}, **spec.machines})


def on(name: str, network: str = "a", **more: object) -> MachineSpec:
    return MachineSpec(name, "debian-12", interfaces=(InterfaceSpec(network, "auto", "auto"),), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("prefix", "room"), [(30, 2), (29, 6), (28, 14)])
def test_a_small_subnet_fills_completely(prefix: int, room: int) -> None:
    text = f"networks: {{a: {{subnet: 10.0.0.16/{prefix}}}}}\nmachines: {{m: {{count: {room}, networks: [a]}}}}"
    found = addresses(plan_of(text))
    assert set(found.values()) == {f"10.0.0.{16 + n}" for n in range(1, room + 1)}


def test_a_full_subnet_is_an_error_that_names_it() -> None:
    with pytest.raises(UsageError, match=r"network a is full: no address of 10\.0\.0\.0/30 is left for late"):
        build(
            appended(
                spec_of("networks: {a: {subnet: 10.0.0.0/30}}\nmachines: {m: {count: 2, networks: [a]}}"), on("late")
            )
        )


def test_routers_have_the_first_address_and_others_do_not() -> None:
    plan = plan_of(
        """
        networks: {a: {subnet: 10.0.0.0/28, subnet6: "fd00::/64"}, b: {subnet: 10.0.1.0/24}}
        machines:
          m: {count: 12, networks: [a]}
          gate: {router: true, networks: [a, b]}
        """
    )
    assert addresses(plan)["gate.eth0"] == "10.0.0.1"
    assert addresses(plan, 6)["gate.eth0"] == "fd00::1"
    assert "10.0.0.15" not in addresses(plan).values()


def test_a_second_router_takes_another_address() -> None:
    plan = plan_of(
        """
        networks: {a: {subnet: 10.0.0.0/30}, b: {subnet: 10.0.1.0/30}}
        machines: {r: {count: 2, router: true, networks: [a, b]}}
        """
    )
    assert list(addresses(plan).values()) == ["10.0.0.1", "10.0.1.1", "10.0.0.2", "10.0.1.2"]


def test_a_fixed_address_wins_and_counted_copies_follow_upwards() -> None:
    spec = spec_of("networks: {a: {subnet: 10.0.0.0/24}}\nmachines: {m: {count: 3, networks: [a]}}")
    wanted = IPv4Address(addresses(build(spec))["m-2.eth0"])
    fixed = MachineSpec("fixed", "debian-12", count=2, interfaces=(InterfaceSpec("a", wanted),))
    found = addresses(build(appended(spec, fixed)))
    assert found["fixed-1.eth0"] == str(wanted)
    assert found["fixed-2.eth0"] == str(wanted + 1)
    assert len(set(found.values())) == 5


def test_addresses_do_not_depend_on_the_instance_and_macs_do() -> None:
    spec = spec_of("networks: {a: {subnet: 10.0.0.0/24}}\nmachines: {m: {count: 3, networks: [a]}}")
    one, two = build(spec, instance="one"), build(spec, instance="two")
    assert addresses(one) == addresses(two)
    for first, second in zip(one.machines, two.machines, strict=True):
        assert first.interfaces[0].mac != second.interfaces[0].mac
        assert first.management_mac != second.management_mac
        assert first.uuid != second.uuid
    assert one.networks[0].wire != two.networks[0].wire
    assert one.networks[0].key != two.networks[0].key
    assert one.lab_key != two.lab_key


def test_an_appended_machine_moves_nobody_even_where_it_is_crowded() -> None:
    spec = spec_of('networks: {a: {subnet: 10.0.0.0/27, subnet6: "fd00::/120"}}\nmachines: {m0: {networks: [a]}}')
    plan = build(spec)
    for number in range(1, 28):
        spec = appended(spec, on(f"m{number}", router=number % 9 == 0))
        bigger = build(spec)
        for old, new in zip(plan.machines, bigger.machines, strict=False):
            assert old.interfaces == new.interfaces
            assert (old.uuid, old.management_mac) == (new.uuid, new.management_mac)
        plan = bigger


def test_with_the_running_plan_an_inserted_machine_moves_nobody_either() -> None:
    spec = spec_of("networks: {a: {subnet: 10.0.0.0/28}}\nmachines: {m: {count: 10, networks: [a]}}")
    plan = build(spec)
    moved = 0
    for number in range(20):
        bigger = inserted(spec, on(f"x{number}"))
        before = addresses(plan)
        assert before.items() <= addresses(build(bigger, previous=plan)).items()
        moved += not before.items() <= addresses(build(bigger)).items()
    assert moved, "otherwise this shows nothing"


def test_the_running_plan_does_not_hold_against_a_changed_subnet_or_a_fixed_address() -> None:
    plan = plan_of("networks: {a: {subnet: 10.0.0.0/24}}\nmachines: {m: {networks: [a]}, n: {networks: [a]}}")
    taken = addresses(plan)["m.eth0"]
    changed = spec_of(
        f"networks: {{a: {{subnet: 10.0.0.0/24}}}}\nmachines: {{m: {{networks: [a]}}, n: {{networks: {{a: {taken}}}}}}}"
    )
    found = addresses(build(changed, previous=plan))
    assert found["n.eth0"] == taken != found["m.eth0"]
    other = spec_of("networks: {a: {subnet: 10.9.0.0/24}}\nmachines: {m: {networks: [a]}, n: {networks: [a]}}")
    assert all(address.startswith("10.9.0.") for address in addresses(build(other, previous=plan)).values())


def test_a_machine_twice_on_a_network_has_two_addresses_and_macs() -> None:
    plan = plan_of("networks: {a: {subnet: 10.0.0.0/24}}\nmachines: {m: {networks: [{network: a}, {network: a}]}}")
    one, two = plan.machines[0].interfaces
    assert (one.device, two.device) == ("eth0", "eth1")
    assert one.address != two.address
    assert one.mac != two.mac


def test_macs_are_locally_administered_unicast_and_fixed_ones_stay() -> None:
    plan = plan_of(
        """
        networks: {a: {subnet: 10.0.0.0/24}}
        machines:
          m: {count: 40, networks: [a]}
          f: {networks: {a: {mac: "52:54:00:AB:cd:ef"}}}
        """
    )
    macs = [mac for m in plan.machines for mac in (m.management_mac, *(i.mac for i in m.interfaces))]
    assert macs.count("52:54:00:ab:cd:ef") == 1
    assert len(set(macs)) == len(macs)
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)


def test_a_bare_network_has_no_addresses_and_families_are_apart() -> None:
    plan = plan_of(
        """
        networks: {bare: {}, six: {subnet6: "fd00:6::/64"}}
        machines: {m: {networks: [bare, six]}}
        """
    )
    bare, six = plan.machines[0].interfaces
    assert bare.addresses() == ()
    assert six.address is None
    assert six.address6 is not None and six.address6.network.prefixlen == 64


def test_the_way_out_of_a_network_with_egress_is_nobody_elses() -> None:
    plan = plan_of(
        """
        networks: {a: {subnet: 10.0.0.0/29, egress: nat}, b: {subnet: 10.0.1.0/24}}
        machines:
          r: {router: true, networks: [a, b]}
          m: {count: 4, networks: [a]}
          inner: {networks: [b]}
        """
    )
    assert plan.network("a").exit == IPv4Address("10.0.0.1")
    assert plan.network("b").exit is None
    assert "10.0.0.1" not in addresses(plan).values()
    assert [str(r.gateway) for r in plan.machine("m-1").routes if r.target.prefixlen == 0] == ["10.0.0.1"]
    assert [str(r.gateway) for r in plan.machine("r").routes] == ["10.0.0.1"]


def test_names_are_asked_at_the_last_address_that_nobody_has() -> None:
    text = """
        networks: {a: {subnet: 10.0.0.0/29, egress: nat}, b: {subnet: 10.0.1.0/24}}
        machines:
          last: {networks: {a: 10.0.0.6}}
          m: {count: COUNT, networks: [a]}
          inner: {networks: [b]}
        """
    plan = plan_of(text.replace("COUNT", "3"))
    resolver = plan.network("a").resolver
    assert resolver is not None and resolver in IPv4Network("10.0.0.0/29")
    assert str(resolver) not in {*addresses(plan).values(), "10.0.0.1"}
    assert plan.machine("m-1").resolvers == plan.machine("last").resolvers == (resolver,)
    assert plan.network("b").resolver is None and plan.machine("inner").resolvers == ()
    # machines come first: in a full subnet there is nobody to ask
    full = plan_of(text.replace("COUNT", "4"))
    assert full.network("a").resolver is None and full.machine("last").resolvers == ()
