"""What is done in guests: the files beside a Vagrantfile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from labctl.errors import UsageError
from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.providers.vagrant import management, provision, windows
from labctl.spec.load import load
from labctl.spec.model import FileStep, ScriptStep, ShellStep, Step

pytestmark = pytest.mark.unit

LABS = Path(__file__).resolve().parents[2] / "golden/vagrant"


@pytest.fixture(scope="module")
def plan() -> LabPlan:
    return build(load(LABS / "everything/lab.yaml"), provider="virtualbox")


def scripts(plan: LabPlan, machine: str, *steps: Step) -> list[str]:
    made = provision.script(plan, replace(plan.machine(machine), steps=steps))
    return [text for name, text in made.files.items() if "machine" not in name.rsplit("/", 1)[-1]]


@pytest.mark.parametrize("source", ["/etc/passwd", "../x", "a/../../x", "", ".", "C:/x", "a\\b"])
@pytest.mark.parametrize("kind", [lambda source: FileStep("/x", source=source), ScriptStep])
def test_a_file_from_outside_the_lab_is_refused(plan: LabPlan, source: str, kind: type[Step]) -> None:
    with pytest.raises(UsageError, match="not a path inside"):
        scripts(plan, "fw", kind(source))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_text_that_no_script_can_hold_is_refused(plan: LabPlan, text: str) -> None:
    with pytest.raises(UsageError, match="NUL"):
        scripts(plan, "fw", ShellStep(text))


def test_names_of_files_come_from_machines_and_numbers_alone(plan: LabPlan) -> None:
    hostile = "'; touch /tmp/x #{1} ../../$(id)"
    steps = (FileStep("/" + hostile, content=hostile), ShellStep(hostile), ScriptStep("a b", (hostile,)))
    made = provision.script(plan, replace(plan.machine("foreign"), steps=steps))
    assert list(made.files) == [
        "provision/foreign/00-machine.sh",
        "provision/foreign/01-file.sh",
        "provision/foreign/02-shell.sh",
        "provision/foreign/03-script.sh",
    ]
    assert {p.destination for p in made.provisioners} == {None, "/var/tmp/labctl-upload"}


def test_a_machine_without_secrets_has_scripts_without_them(plan: LabPlan) -> None:
    assert not [text for machine in plan.machines for text in scripts(plan, machine.name) if "SECRETS" in text]


def test_a_here_document_ends_where_its_text_ends(plan: LabPlan) -> None:
    (text,) = scripts(plan, "foreign", FileStep("/x", content="END\nEND_\ntouch /tmp/x\n"))
    assert "<<'END__'\nEND\nEND_\ntouch /tmp/x\nEND__\n" in text


def test_provisioners_of_a_machine_have_names_of_their_own(plan: LabPlan) -> None:
    for machine in plan.machines:
        names = [p.name for p in provision.script(plan, machine).provisioners]
        assert len(names) == len(set(names)), "Vagrant replaces a provisioner by a later one of the same name"


def test_packages_are_fetched_before_the_way_out_is_closed(plan: LabPlan) -> None:
    names = [p.name for p in provision.script(plan, plan.machine("web")).provisioners]
    assert names[:2] == ["packages", "machine"]


def test_the_configuration_runs_at_each_start_and_the_steps_once(plan: LabPlan) -> None:
    for machine in plan.machines:
        always = [p.name for p in provision.script(plan, machine).provisioners if p.always]
        assert always == ["machine"]


def test_no_name_of_a_nic_can_be_that_of_the_box(plan: LabPlan) -> None:
    for machine in management.adapted(plan).machines:
        devices = [i.device for i in machine.interfaces]
        devices += [r.device for r in (*machine.routes, *machine.source_routes)]
        devices += [d for rule in machine.forward for d in (rule.in_device, rule.out_device)]
        assert all(device.startswith("lab") for device in devices)


def test_default_routes_are_in_the_table_that_counts_and_in_no_other(plan: LabPlan) -> None:
    for machine in plan.machines:
        if machine.os == "linux":
            assert not any(route.target.prefixlen == 0 for route in management.adapted_machine(machine).routes)
            text = management.close(plan, machine)
            assert text.count("unreachable default metric 4096 table 4000") == 2, "one per family"


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("x", "'x'"),
        ("it's", "'it''s'"),
        ("\u2018\u2019\u201a\u201b", "'\u2018\u2018\u2019\u2019\u201a\u201a\u201b\u201b'"),
        ("$(x) `n", "'$(x) `n'"),
    ],
)
def test_powershell_takes_a_text_as_it_is(text: str, literal: str) -> None:
    assert windows.quote(text) == literal


def test_powershell_reads_its_scripts_as_unicode(plan: LabPlan) -> None:
    files = provision.script(plan, plan.machine("pc")).files
    assert files
    assert all(name.endswith(".ps1") and text.startswith("\ufeff$ErrorAction") for name, text in files.items())
