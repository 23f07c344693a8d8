"""Sheets for students: one page of HTML each, which needs nothing else and opens anywhere.

Names, descriptions and addresses are text and stay text: the template escapes everything. The tasks are the lab's
README; its Markdown may not hold HTML or pictures, and the page's policy lets nothing run or load.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from labctl.errors import LabctlError
from labctl.host.files import write_atomic
from labctl.lifecycle.classroom import luggage
from labctl.lifecycle.classroom.seats import Place
from labctl.lifecycle.classroom.ssh import at_the_door, check_server, host_name, let_in
from labctl.lifecycle.locate import DEFAULT_INSTANCE, Running, draft_of, running
from labctl.plan.model import LabPlan, MachinePlan
from labctl.spec.classfile import ClassSpec, Seat
from labctl.spec.files import read_lab_file
from labctl.spec.load import load
from labctl.spec.secrets import can_be_guessed

if TYPE_CHECKING:
    import jinja2

_FOLDER = Path(__file__).parent
_TASKS = "README.md"
_MOST_TASKS = 1 << 20  # bytes; a sheet is read on paper


@dataclass(frozen=True, slots=True)
class Door:
    """A machine that a student may log in to. addresses: network and addresses, for people. command: what to type,
    ``""`` where the machine does not run. account: ``""`` where nobody logs in with a key of their own."""

    machine: str
    description: str
    addresses: tuple[str, ...]
    command: str
    account: str


@dataclass(frozen=True, slots=True)
class Page:
    """What is on one sheet beside the tasks. submit: how flags are handed in. begin: the command that brings the lab up
    on the student's own computer, token: what it asks for, reset: how it is begun anew there. All maybe ``""``.
    """

    plan: LabPlan
    doors: tuple[Door, ...]
    submit: str = ""
    begin: str = ""
    token: str = ""
    reset: str = ""


def write(spec: ClassSpec, chosen: Sequence[Place], folder: Path, *, jump: str | None = None) -> tuple[Path, ...]:
    """A sheet for each of the chosen who is on the roster and has an instance, ``INSTANCE.html``. Gives the files.

    jump: the server through which students come. Raises UsageError, HostError, and what is wrong with an instance.
    """
    check_server(jump)
    pages = (
        (place, _page(spec, place, running(place.folder), jump))
        for place in chosen
        if place.seat is not None and place.folder is not None
    )
    return _write(spec, pages, folder)


def write_for_laptops(spec: ClassSpec, chosen: Sequence[Place], folder: Path, bundle: str) -> tuple[Path, ...]:
    """A sheet for each of the chosen who is on the roster: how to bring the lab up alone. Gives the files.

    bundle: the name of the file that ``luggage.pack`` has written. Raises UsageError, HostError, SpecError.
    """
    lab = load(spec.lab)
    plan = draft_of(lab, instance=DEFAULT_INSTANCE).plan
    doors = tuple(
        Door(one.name, one.description, tuple(_addresses(one)), f"labctl ssh {plan.lab} {one.name}", "")
        for one in plan.machines
    )
    submit = f"labctl submit {plan.lab}" if _has_flags(plan) else ""
    page = Page(plan, doors, submit, f"labctl up {shlex.quote(bundle)}", reset=f"labctl reset {plan.lab}")
    pages = (
        (place, replace(page, token=luggage.token_of(spec, lab, place.seat)))
        for place in chosen
        if place.seat is not None
    )
    return _write(spec, pages, folder)


def _write(spec: ClassSpec, pages: Iterable[tuple[Place, Page]], folder: Path) -> tuple[Path, ...]:
    tasks, found = _tasks(spec), []
    for place, page in pages:
        found.append(folder / f"{place.instance}.html")
        mode = 0o600 if page.token else 0o644  # a token is for its owner
        write_atomic(found[-1], _sheet(spec, place, page, tasks), mode=mode)
    return tuple(found)


def _sheet(spec: ClassSpec, place: Place, page: Page, tasks: str) -> str:
    """The text of one sheet. tasks: Markdown."""
    style = (_FOLDER / "handout.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return str(
        _environment()
        .get_template("handout.html.j2")
        .render(
            policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
            style=style,
            spec=spec,
            place=place,
            students=place.seat.students if place.seat is not None else (),
            lab=page.plan,
            page=page,
            tasks=_html(tasks),
        )
    )


def _page(spec: ClassSpec, place: Place, lab: Running, jump: str | None) -> Page:
    door = jump is not None and spec.admission(_seat(place)) is not None
    submit = at_the_door(jump, "submit") if jump is not None and door and _has_flags(lab.plan) else ""
    return Page(lab.plan, tuple(_doors(spec, place, lab, jump)), submit)


def _has_flags(plan: LabPlan) -> bool:
    return any(not can_be_guessed(secret) for secret in plan.secrets)


def _doors(spec: ClassSpec, place: Place, lab: Running, jump: str | None) -> Iterator[Door]:
    """The machines of ``login``; where the class has none, all, since the teacher opens them."""
    for machine in lab.plan.machines:
        if spec.login is None or let_in(spec, machine):
            account = spec.login.user if spec.login is not None and spec.admission(_seat(place)) is not None else ""
            yield Door(
                machine.name,
                machine.description,
                tuple(_addresses(machine)),
                _command(spec, place, lab, machine.name, account, jump),
                account,
            )


def _command(spec: ClassSpec, place: Place, lab: Running, machine: str, account: str, jump: str | None) -> str:
    if not account:
        return ""
    if jump is not None:
        return (
            f'ssh -o ProxyCommand="{at_the_door(jump, "connect", machine)}" {account}@{host_name(spec, place, machine)}'
        )
    try:
        endpoint = lab.provider.endpoint(lab.plan, machine)
    except LabctlError:
        return ""
    return f"ssh -p {endpoint.port} {account}@{endpoint.host}"


def _addresses(machine: MachinePlan) -> Iterator[str]:
    for interface in machine.interfaces:
        yield f"{interface.network} {', '.join(str(one) for one in interface.addresses()) or 'no address'}"


def _seat(place: Place) -> Seat:
    return place.seat if place.seat is not None else Seat(place.instance, ())


def _tasks(spec: ClassSpec) -> str:
    """The lab's README, without its title; ``""`` where it has none."""
    root = spec.lab.parent
    if not (root / _TASKS).exists():
        return ""
    text = read_lab_file(root, _TASKS)[:_MOST_TASKS].decode("utf-8", errors="replace")
    first, _, rest = text.lstrip().partition("\n")
    return rest if first.startswith("# ") else text


def _html(markdown: str) -> str:
    """Markdown as HTML without pictures, raw HTML, or links to anything but web pages and mail."""
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return str(made.render("".join(c if c.isprintable() or c in "\n\t" else "�" for c in markdown)))


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
