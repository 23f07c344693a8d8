"""Which file is meant and what it is; what is refused, and in which words; where the result is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.errors import LabctlError, UsageError
from labctl.lifecycle.foreign.recognise import Kind, find
from labctl.lifecycle.foreign.translate import Translation, translate, write

pytestmark = pytest.mark.unit

KYPO = "name: x\nhosts: [{name: a, base_box: {image: debian-12}}]\nrouters: []\nnetworks: []\n"
CLAB = "name: x\ntopology: {nodes: {a: {kind: linux}}}\n"


def never(_: Path) -> bool:
    pytest.fail("nobody may be asked")


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("Vagrantfile", "x", "vagrant"),
        ("Vagrantfile.lab", "x", "vagrant"),
        ("topology.yml", KYPO, "kypo"),
        ("anything.yaml", KYPO, "kypo"),
        ("lab.clab.yml", CLAB, "containerlab"),
        ("topology.yaml", CLAB, "containerlab"),
    ],
)
def test_a_description_is_recognised(tmp_path: Path, name: str, text: str, kind: Kind) -> None:
    (tmp_path / name).write_text(text)
    assert find(tmp_path / name, None).kind == kind
    assert find(tmp_path / name, kind).kind == kind


@pytest.mark.parametrize("name", ["Vagrantfile", "topology.yml", "x.clab.yml"])
def test_a_folder_means_the_description_in_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(CLAB if "clab" in name else KYPO)
    (tmp_path / "README.md").write_text("x")
    assert find(tmp_path, None).file == tmp_path / name


def test_a_folder_with_two_descriptions_is_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "Vagrantfile").write_text("x")
    (tmp_path / "topology.yml").write_text(KYPO)
    with pytest.raises(UsageError, match=r"more than one description: Vagrantfile, topology\.yml"):
        find(tmp_path, None)
    assert find(tmp_path, "kypo").kind == "kypo"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("topology.yml", b"", "is empty"),
        ("topology.yml", b"just text", "is not a description that labctl knows"),
        ("topology.yml", b"[1, 2]", "is not a description that labctl knows"),
        ("topology.yml", b"hosts: none\nrouters: none\nnetworks: none", "is not a description that labctl knows"),
        ("topology.yml", b"topology: {nodes: [a]}", "is not a description that labctl knows"),
        ("topology.yml", b"services: {web: {image: nginx}}", "is not a description that labctl knows"),
        ("topology.yml", b"\x7fELF\0\0", "this is a binary file"),
        ("topology.yml", b"\xff\xfe", "this is not UTF-8"),
        ("topology.yml", b"a: 1\na: 2", "is there twice"),
        ("topology.yml", b"x: !!python/object/apply:os.system [id]", "tag"),
        ("topology.yml", b"x" * (10 << 20), "larger than 1 MiB"),
        (
            "topology.yml",
            b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"b: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n" * 1,
            "not a description",
        ),
        ("topology.yml", b"a: &a {<<: *a}", "alias"),
        ("topology.yml", b"[" * 2000, "nested deeper"),
        ("x.clab.yml", b"topology: {nodes: {}}", "no nodes"),
        ("x.clab.yml", b"topology: {nodes: {br: {kind: bridge}}}", "no nodes that are machines"),
        ("topology.yml", b"hosts: []\nrouters: []\nnetworks: []", "no hosts and no routers"),
        ("Vagrantfile", b"", "is empty"),
        ("Vagrantfile", b" \n\n", "is empty"),
        ("Vagrantfile", b"\x7fELF\0\0", "is a binary file"),
        ("Vagrantfile", b"#" * (10 << 20), "is larger than 1 MiB"),
    ],
)
def test_what_is_no_description_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabctlError) as error:
        translate(tmp_path / name, None, consent=never)
    said = f"{error.value.brief}\n{error.value.details}"
    assert message in said, said
    assert error.value.exit_code == 2


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to import in"):
        find(tmp_path, None)
    with pytest.raises(LabctlError) as error:
        find(tmp_path / "gone.yml", None)
    assert "no such file" in error.value.details
    with pytest.raises(UsageError, match="there is no file"):
        find(tmp_path / "Vagrantfile", None)
    (tmp_path / "Vagrantfile").mkdir()
    with pytest.raises(UsageError, match="nothing to import in"):
        find(tmp_path / "Vagrantfile", None)
    with pytest.raises(UsageError, match="there is no file"):
        find(tmp_path, "vagrant")


def test_a_kind_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "topology.yml").write_text(KYPO)
    with pytest.raises(UsageError, match="is not a topology of containerlab"):
        find(tmp_path / "topology.yml", "containerlab")


def test_a_vagrantfile_is_not_run_without_consent(tmp_path: Path) -> None:
    (tmp_path / "Vagrantfile").write_text("x")
    asked: list[Path] = []
    with pytest.raises(UsageError) as error:
        translate(tmp_path, None, consent=lambda file: bool(asked.append(file)))
    assert asked == [tmp_path / "Vagrantfile"]
    assert "--run-vagrantfile" in error.value.hint


def made(**files: bytes) -> Translation:
    return Translation(
        "kypo", Path("x"), "name: lab\n", {name.replace("__", "/"): text for name, text in files.items()}, ()
    )


def test_a_lab_is_written_with_its_files_and_again_without_change(tmp_path: Path) -> None:
    target = tmp_path / "new/lab"
    assert write(made(scripts__run=b"x"), target, force=False) == [target / "scripts/run", target / "lab.yaml"]
    assert (target / "lab.yaml").read_text() == "name: lab\n"
    before = (target / "lab.yaml").stat().st_mtime_ns
    write(made(scripts__run=b"x"), target, force=False)
    assert (target / "lab.yaml").stat().st_mtime_ns == before


def test_nothing_is_replaced_unless_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UsageError, match="run exists already"):
        write(made(run=b"x"), tmp_path, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    write(made(run=b"x"), tmp_path, force=True)
    assert (tmp_path / "run").read_bytes() == b"x"


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lab/scripts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="leads out of"):
        write(made(scripts__run=b"x"), tmp_path / "lab", force=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lab/lab.yaml").symlink_to(tmp_path / "victim")
    write(made(), tmp_path / "lab", force=True)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "lab/lab.yaml").is_symlink()
