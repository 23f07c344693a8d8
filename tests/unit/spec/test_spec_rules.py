"""The semantic rules: each can fire, and none fires at a lab that is right. Their texts are golden files."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.spec import rules
from labctl.spec.build import build
from labctl.spec.load import check
from labctl.spec.nodes import plain, with_defaults
from labctl.spec.problems import SpecError
from labctl.spec.rules.context import Context
from labctl.spec.schema import findings as schema_findings
from labctl.spec.source import read

pytestmark = pytest.mark.unit

ERRORS = Path(__file__).parents[2] / "golden" / "spec" / "errors"
TOP = "version: 1\nname: t\ndefaults: {image: debian-12}\n"


def contexts() -> list[Context]:
    """Every bad golden lab that gets as far as the rules."""
    found = []
    for file in sorted(ERRORS.glob("*.yaml")):
        try:
            document = read(file)
        except SpecError:
            continue
        if next(schema_findings(plain(document.root)), None) is None:
            data = plain(with_defaults(document.root))
            found.append(Context(build(data, file), data))
    return found


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}")
def test_every_rule_has_a_lab_that_breaks_it(rule: rules.Rule) -> None:
    assert any(next(rule(context), None) is not None for context in contexts())


def messages(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "lab.yaml").write_text(TOP + text)
    return [problem.message for problem in check(tmp_path)]


GOOD = {
    "a router twice": """
networks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}}
machines: {r: {router: true, count: 2, networks: {a: 10.1.0.1, b: 10.2.0.1}}}
""",
    "a router of IPv6 only": """
networks: {a: {subnet6: fd00:1::/64}, b: {subnet6: fd00:2::/64}}
machines: {r: {router: true, networks: [a, b]}, x: {networks: [a]}}
policy: [{from: x, to: b, ports: any}]
""",
    "a chain of routers": """
networks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/30}, c: {subnet: 10.3.0.0/24}}
machines:
  r1: {router: true, networks: [a, b]}
  r2: {router: true, networks: [b, c]}
  x: {networks: [a]}
policy: [{from: x, to: c, ports: icmp}, {from: c, to: r1.a, ports: tcp/22}, {from: r1, to: c, ports: any}]
""",
    "a machine on both ends' networks": """
networks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}}
machines: {r: {router: true, networks: [a, b]}, x: {networks: [a, b]}, y: {networks: [b]}}
policy: [{from: x, to: y, ports: any}]
""",
    "a full subnet": """
networks: {a: {subnet: 10.1.0.0/30}, b: {subnet6: "fd00::/126"}}
machines: {x: {count: 2, networks: {a: 10.1.0.1, b: auto}}}
""",
    "a counted range up to the last address": """
networks: {a: {subnet: 10.1.0.0/29}}
machines: {x: {count: 3, networks: {a: 10.1.0.4}}, y: {count: 3, networks: {a: 10.1.0.1}}}
""",
    "one address on two networks": """
networks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.1.0.0/24}}
machines: {x: {networks: {a: 10.1.0.5}}, y: {networks: {b: 10.1.0.5}}}
""",
    "twice on a network": """
networks: {a: {subnet: 10.1.0.0/24}}
machines: {x: {networks: [{network: a}, {network: a, promiscuous: true}]}}
""",
    "a gateway that is no router": """
networks: {a: {subnet: 10.1.0.0/24}}
machines: {x: {networks: [a], gateway: 10.1.0.254}}
""",
    "waiting for one copy": """
machines: {x: {count: 2}, y: {depends_on: [x-1, x]}}
""",
    "a diamond of dependencies": """
machines: {a: {depends_on: [b, c]}, b: {depends_on: [d]}, c: {depends_on: [d]}, d: {}}
""",
    "a machine without networks": """
machines: {x: {}}
""",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_is_right_is_let_through(tmp_path: Path, text: str) -> None:
    assert messages(tmp_path, text) == []


def test_links_that_leave_the_lab_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "link").symlink_to(outside)
    (lab / "file").symlink_to("../outside/secret")
    (lab / "inside").symlink_to("lab.yaml")
    steps = "[{script: link/secret}, {file: {target: /a, source: file}}, {script: inside}]"
    assert messages(lab, f"checks: link\nmachines: {{x: {{provision: {steps}}}}}\n") == [
        '"link" leads out of the lab\'s folder',
        "link/secret leads out of the lab's folder",
        "file leads out of the lab's folder",
    ]


def test_a_source_that_is_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    assert messages(tmp_path, "machines: {x: {provision: [{script: files}]}}\n") == ["the lab's file files is missing"]


def test_checks_that_are_a_file_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "checks").write_text("")
    assert messages(tmp_path, "checks: checks\nmachines: {x: {}}\n") == ['there is no folder "checks"']


def test_defaults_that_multiply_are_refused(tmp_path: Path) -> None:
    users = ", ".join(f"u{i}: {{password: a, groups: [a, b, c]}}" for i in range(90))
    machines = ", ".join(f"m{i}: {{}}" for i in range(400))
    (tmp_path / "lab.yaml").write_text(
        f"version: 1\nname: t\ndefaults: {{image: x, users: {{{users}}}}}\nmachines: {{{machines}}}\n"
    )
    (only,) = check(tmp_path)
    assert only.message.startswith("these defaults make ")
