"""Which files are read at all, and that every value knows its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labctl.spec.load import check, load
from labctl.spec.nodes import locate, plain
from labctl.spec.problems import SpecError
from labctl.spec.source import MAX_BYTES, read

pytestmark = pytest.mark.unit

GOOD = "version: 1\nname: t\nmachines: {web: {image: debian-12}}\n"


def problem(path: Path) -> tuple[str, int, int]:
    """The one problem of a file: message, line, column."""
    (only,) = check(path)
    return only.message, only.line, only.column


def test_a_folder_means_its_lab_yaml(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(GOOD)
    spec = load(tmp_path)
    assert spec.file == tmp_path / "lab.yaml"
    assert spec.root == tmp_path


def test_a_relative_path_becomes_absolute_in_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load(Path()).file == tmp_path / "lab.yaml"


def test_a_folder_without_lab_yaml(tmp_path: Path) -> None:
    assert problem(tmp_path) == ("there is no lab.yaml in this folder", 0, 0)
    assert check(tmp_path)[0].render().startswith(f"{tmp_path / 'lab.yaml'}: there is no lab.yaml")


def test_no_such_file(tmp_path: Path) -> None:
    assert problem(tmp_path / "no.yaml") == ("there is no such file or folder", 0, 0)
    (tmp_path / "link.yaml").symlink_to("nowhere")
    assert problem(tmp_path / "link.yaml") == ("there is no such file or folder", 0, 0)


def test_a_name_that_no_system_can_open(tmp_path: Path) -> None:
    assert len(check(tmp_path / ("x" * 300))) == 1
    assert len(check(tmp_path / "a\0b")) == 1


def test_a_folder_called_lab_yaml(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").mkdir()
    assert problem(tmp_path) == ("this is not a regular file", 0, 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lab.yaml")
    assert problem(tmp_path) == ("this is not a regular file", 0, 0)


def test_ten_megabytes_are_refused_without_reading_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lab.yaml"
    with file.open("wb") as stream:
        stream.truncate(10 << 20)
    asked: list[int] = []
    opened = Path.open

    def spy(self: Path, *args: object, **kwargs: object) -> object:
        stream = opened(self, *args, **kwargs)  # type: ignore[call-overload]
        inner = stream.read
        stream_read = lambda size=-1: asked.append(size) or inner(size)  # noqa: E731
        return type(
            "Spy", (), {"read": staticmethod(stream_read), "__enter__": lambda s: s, "__exit__": lambda *_: None}
        )()

    monkeypatch.setattr(Path, "open", spy)
    assert problem(file) == ("the file is larger than 1 MiB", 0, 0)
    assert asked == [MAX_BYTES + 1]


def test_a_file_of_just_the_limit_is_read(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(GOOD + "#" * (MAX_BYTES - len(GOOD)))
    assert check(file) == ()


def test_binary_files(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_bytes(b"\x7fELF\x02\x01\x01\0\0")
    assert problem(file)[0] == "this is a binary file, not YAML text"
    file.write_bytes(GOOD.encode("utf-16"))
    assert problem(file)[0] == "this is a binary file, not YAML text"


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_bytes(GOOD.encode() + "# Büro".encode("latin-1"))
    assert problem(file)[0].startswith("this is not UTF-8 text")


def test_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert check(file) == ()


@pytest.mark.parametrize("char", ["\x01", "\x1b", "\x7f", "\x9b", "\ufffe"])
def test_control_characters_are_placed_and_not_printed(tmp_path: Path, char: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(GOOD + f"# ab{char}")
    message, line, column = problem(file)
    assert "control character" in message
    assert (line, column) == (4, 5)
    assert char not in check(file)[0].render()


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_break_counts_alike(tmp_path: Path, newline: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_bytes((GOOD + "seal: maybe\n").replace("\n", newline).encode())
    (only,) = check(file)
    assert (only.line, only.column, only.source_line) == (4, 7, "seal: maybe")


@pytest.mark.parametrize("char", ["é", "\U0001f512", "\t", "\u2028", "\x85"])
def test_columns_count_characters(tmp_path: Path, char: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(GOOD + f'x-a: ["{char}", {{seal: 1, seal: 2}}]\n', encoding="utf-8", newline="")
    (only,) = check(file)
    assert only.source_line[only.column - 1 :].startswith("seal: 2")


def test_every_key_and_value_knows_its_place(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(
        "version: 1\nmachines:\n  web:\n    services: [tcp/80,\n      udp/53]\n  db: &db\n    cpus: 2\n  ns: *db\n"
    )
    root = read(file).root
    places = {
        ("version",): ((1, 1), (1, 10)),
        ("machines", "web"): ((3, 3), (4, 5)),
        ("machines", "web", "services"): ((4, 5), (4, 15)),
        ("machines", "web", "services", 1): ((5, 7), (5, 7)),
        ("machines", "db", "cpus"): ((7, 5), (7, 11)),
        ("machines", "ns", "cpus"): ((7, 5), (7, 11)),
        ("machines", "ns", "no", "such", 3): ((8, 3), (8, 3)),
    }
    for keys, (key_place, value_place) in places.items():
        key, value = locate(root, keys, on_key=True), locate(root, keys)
        assert ((key.line, key.column), (value.line, value.column)) == (key_place, value_place), keys


def test_merge_keys_bring_values_that_keep_their_place(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text("x-a: &a {cpus: 1, gui: true}\nx-b: &b {cpus: 2, memory: 1G}\nweb: {<<: [*b, *a], memory: 2G}\n")
    root = read(file).root
    assert plain(root)["web"] == {"cpus": 2, "gui": True, "memory": "2G"}
    assert locate(root, ("web", "cpus")).line == 2
    assert locate(root, ("web", "memory")).line == 3


def test_a_quoted_merge_key_is_a_key(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text('web: {"<<": {a: 1}}\n')
    assert plain(read(file).root) == {"web": {"<<": {"a": 1}}}


def test_all_duplicates_are_reported_and_not_more_than_anybody_reads(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text("a: 1\n" * 4)
    with pytest.raises(SpecError) as error:
        read(file)
    assert [p.line for p in error.value.problems] == [2, 3, 4]
    file.write_text("a: 1\n" * 5000)
    assert len(check(file)) == 200


def test_the_python_parser_gives_the_same_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    files = sorted((repository / "tests/golden/spec/valid").glob("*.yaml"))
    assert files
    fast = [read(file).root for file in files]
    monkeypatch.setattr("yaml.__with_libyaml__", False)
    assert [read(file).root for file in files] == fast
