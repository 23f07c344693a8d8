"""Text that tries to become something else: a path, a shell command, Ruby, a second line, an option."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from labctl.spec.load import check, load

pytestmark = pytest.mark.unit

HOSTILE = (
    "../x", "/etc/passwd", "a/b", "a\\b", "it's", 'say "x"', "#{`id`}", "$(id)", "`id`", "${HOME}", "a;b", "a|b", "a&b",
    "a b", "a\nb", "a\n", "\ta", "a\rb", "-rf", "--help", "%x", "a%b", "a,b", "a=b", "a:b", "*", "?", "~", "~root", "A",
    "é", "\u202ea", "a\u2028b", "٣", "a" * 64, "", " ", ".", "..", "a..b", "<%= x %>", "{{ x }}",
)  # fmt: skip

HEAD = "version: 1\nname: t\n"


def one(fields: str) -> str:
    """A lab of one machine with these fields."""
    return f"{HEAD}machines: {{a: {{image: i, {fields}}}}}\n"


# Where a name, word or address stands, X being the text; each may become a host-side name, a path, an argument or Ruby.
PLACES = {
    "lab": "version: 1\nname: X\nmachines: {a: {image: i}}\n",
    "network": HEAD + "networks: {X: {}}\nmachines: {a: {image: i}}\n",
    "machine": HEAD + "machines: {X: {image: i}}\n",
    "seat": one("networks: [X]"),
    "address": HEAD + "networks: {n: {subnet: 10.0.0.0/24}}\nmachines: {a: {image: i, networks: {n: X}}}\n",
    "mac": HEAD + "networks: {n: {}}\nmachines: {a: {image: i, networks: {n: {mac: X}}}}\n",
    "subnet": HEAD + "networks: {n: {subnet: X}}\nmachines: {a: {image: i}}\n",
    "provider": HEAD + "provider: X\nmachines: {a: {image: i}}\n",
    "memory": one("memory: X"),
    "depends_on": one("depends_on: [X]"),
    "package": one("provision: [{packages: [X]}]"),
    "user": one("users: {X: {}}"),
    "group": one("users: {u: {groups: [X]}}"),
    "key": one("users: {u: {keys: [X]}}"),
    "login shell": one("users: {u: {shell: X}}"),
    "disk": one("disks: {X: 1 GiB}"),
    "port": one("services: [X]"),
    "mode": one("provision: [{file: {target: /a, content: x, mode: X}}]"),
    "owner": one("provision: [{file: {target: /a, content: x, owner: X}}]"),
    "host address": HEAD + "hosts: {X: a}\nmachines: {a: {image: i}}\n",
    "machine type": one("providers: {qemu: {machine: X}}"),
    "end": HEAD + "machines: {a: {image: i}}\npolicy: [{from: X, to: a, ports: any}]\n",
}
# Texts from the list that are right in a place after all.
RIGHT = {
    ("owner", "a:b"),
    ("login shell", "/etc/passwd"),
    ("package", "a..b"),
    ("package", "a" * 64),
    ("machine type", "a..b"),
}


@pytest.mark.parametrize("place", PLACES)
def test_hostile_text_is_refused_where_a_name_stands(tmp_path: Path, place: str) -> None:
    file = tmp_path / "lab.yaml"
    accepted = []
    for text in HOSTILE:
        file.write_text(PLACES[place].replace("X", json.dumps(text)), encoding="utf-8")
        problems = check(file)
        if not problems:
            accepted.append((place, text))
        for problem in problems:
            assert problem.render().replace("\n", "").isprintable()
    assert set(accepted) == {pair for pair in RIGHT if pair[0] == place}


def test_free_text_is_kept_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    for text in HOSTILE[:-1]:
        lab = {
            "version": 1,
            "name": "t",
            "description": text.replace("\r", " "),
            "machines": {
                "a": {"image": "i", "provision": [{"file": {"target": "/a", "content": text}}, {"shell": text + "x"}]}
            },
        }
        file.write_text(json.dumps(lab), encoding="utf-8")
        spec = load(file)
        assert spec.description == text.replace("\r", " ")
        assert spec.machines["a"].provision[0].content == text  # type: ignore[union-attr]


def chain(first: str, link: str, count: int) -> str:
    """Anchored values, each made of the one before: P stands for its name, N for the new one's."""
    return (
        HEAD
        + f"a0: &a0 {first}\n"
        + "".join(f"a{i}: &a{i} {link.replace('P', f'a{i - 1}').replace('N', f'a{i}')}\n" for i in range(1, count))
    )


def lines(header: str, line: str, count: int) -> str:
    """A line many times; I stands for its number, J for the next one's, K for one further away."""
    numbered = (line.replace("I", str(i)).replace("J", str((i + 1) % count)).replace("K", str((i * 7 + 1) % count))
                for i in range(count))  # fmt: skip
    return header + "\n" + "\n".join(numbered) + "\n"


GREEDY = {
    "nested aliases": chain("[x,x,x]", "[*P,*P,*P,*P,*P,*P,*P,*P,*P]", 12),
    "nested aliases in mappings": chain("{a: 1, b: 2}", "{a: *P, b: *P}", 30),
    "deep through aliases": chain("[x]", "[*P]", 5000),
    "deep through merges": chain("{k: 1}", "{<<: *P, N: 1}", 5000),
    "deep brackets": HEAD + "x-a: " + "[" * 500_000,
    "deep indentation": HEAD + "x-a:\n" + "".join(" " * i + "a:\n" for i in range(1, 1000)),
    "many values": HEAD + "x-a: [" + "a," * 400_000 + "]\n",
    "many unknown keys": lines(HEAD + "machines:\n  a:", "    kI: 1", 30_000),
    "a key of half a megabyte": HEAD + '? "' + "a" * 500_000 + '"\n: 1\n',
    "a name of half a megabyte": 'version: 1\nname: "' + "a-" * 250_000 + '"\nmachines: {a: {image: i}}\n',
    "a long number": HEAD + "x-a: " + "9" * 500_000 + "\n",
    "questions": HEAD + "x-a: " + "{? " * 200_000,
    "a dependency cycle of 500": lines(HEAD + "machines:", "  mI: {image: i, depends_on: [mJ]}", 500),
    "all subnets overlap": lines(HEAD + "networks:", "  nI: {subnet: 10.0.0.0/8}", 200)
    + lines("machines:", "  mI: {image: i, router: true, networks: [nI, nJ, nK]}", 200),
}


@pytest.mark.parametrize("text", GREEDY.values(), ids=GREEDY)
def test_greedy_files_cost_a_moment_and_get_a_short_answer(tmp_path: Path, text: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    began = time.process_time()
    problems = check(file)
    assert time.process_time() - began < 10
    assert 1 <= len(problems) <= 200
    assert all(len(problem.render()) < 2000 for problem in problems)
