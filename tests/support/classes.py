"""A class on disk whose instances are notes (the fake provider)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

from labctl.events import Event
from labctl.lifecycle.classroom import verbs
from labctl.lifecycle.classroom.seats import Place, pick, places
from labctl.lifecycle.classroom.work import Result
from labctl.providers.fake.notes import Notes
from labctl.spec.classfile import ClassSpec, load

LAB = """\
version: 1
name: two
defaults: {image: debian-12}
networks:
  lan: {subnet: 10.9.0.0/24}
machines:
  a: {networks: {lan: auto}}
  b: {networks: {lan: auto}}
"""


@dataclass
class Room:
    """A folder with a lab, a class file and a roster, and the verbs on it."""

    folder: Path
    events: list[Event] = field(default_factory=list)

    def write(self, text: str = "", *, roster: str = "[s01, s02, s03]", name: str = "monday", lab: str = LAB) -> None:
        """The class file: its head, a roster, and more text."""
        (self.folder / "lab").mkdir(exist_ok=True)
        (self.folder / "lab" / "lab.yaml").write_text(lab, encoding="utf-8")
        head = f"version: 1\nname: {name}\nlab: lab\nroster: {roster}\n"
        (self.folder / "class.yaml").write_text(head + dedent(text), encoding="utf-8")

    @property
    def spec(self) -> ClassSpec:
        return load(self.folder)

    def chosen(self, *only: str) -> tuple[Place, ...]:
        return pick(self.spec, places(self.spec), only)

    def up(self, *only: str, jobs: int = 2, **options: Any) -> dict[str, Result]:
        results = verbs.up(
            self.spec, self.chosen(*only), provider="fake", jobs=jobs, listener=self.events.append, **options
        )
        return by_name(results)

    def states(self) -> dict[str, str]:
        """What ``status`` says of every instance."""
        return {result.place.instance: result.did for result in verbs.status(self.chosen())}

    def notes(self, instance: str) -> Notes:
        """The machines of an instance."""
        (place,) = self.chosen(instance)
        assert place.folder is not None
        return Notes(place.folder.engine)


def by_name(results: Sequence[Result]) -> dict[str, Result]:
    """Results by instance."""
    return {result.place.instance: result for result in results}
