"""``lock``, and what ``up`` makes of a lock file: which images a lab wants, has, and is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from labctl.errors import LabctlError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.images import Image, pinning, resolve
from labctl.images.pinning import Pin
from labctl.lifecycle import lockfile
from labctl.lifecycle.locate import Draft
from labctl.lifecycle.lockfile import Lock

Wanted = tuple[str, tuple[str, ...]]
"""An image's name and the packages that a lab adds to it, sorted."""

State = Literal["locked", "not here", "missing", "differs", "unused"]

_SHOWN_DIFFERENCES = 12


@dataclass(frozen=True, slots=True)
class Standing:
    """How one image stands to the lock file.

    expected: the file's entry. found: what there is instead. state: ``locked`` (as the file says), ``not here`` (in the
    file, and nothing here to compare), ``missing`` (not in the file), ``differs``, or ``unused`` (only in the file).
    """

    title: str
    state: State
    expected: Pin | None = None
    found: Pin | None = None

    @property
    def fine(self) -> bool:
        """Whether nothing speaks against the file."""
        return self.state in ("locked", "not here")

    def lines(self) -> tuple[str, ...]:
        """What is wrong, for people."""
        if self.state in ("missing", "unused"):
            why = (
                "is not in the lock file"
                if self.state == "missing"
                else "is in the lock file, and the lab has no use for it"
            )
            return (f"{self.title} {why}",)
        expected, found = _shown(self.expected), _shown(self.found) if self.found else "not in the image store"
        lines = [self.title, f"  expected {expected}", f"  found    {found}"]
        if self.expected and self.found:
            moved = pinning.differences(self.expected, self.found)
            lines += [f"  {line}" for line in moved[:_SHOWN_DIFFERENCES]]
            if len(moved) > _SHOWN_DIFFERENCES:
                lines.append(f"  … and {len(moved) - _SHOWN_DIFFERENCES} more packages")
            if not moved:
                lines.append("  which packages moved is not known" if not _both_known(self) else "  the same packages")
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a lock file says about an ``up``. images: those that are taken from the store because the file says so.

    open: what has to be made first, with what the file says of it.
    """

    images: Mapping[Wanted, Image] = field(default_factory=dict)
    open: Mapping[Wanted, Pin] = field(default_factory=dict)
    file: Path | None = None

    def compare(self, draft: Draft, images: Mapping[str, str], listener: Listener) -> None:
        """Warn of images that were made just now and are not what the file says. images: machine to digest."""
        made = {machine.boots_from: images.get(machine.name, "") for machine in draft.plan.machines}
        for one, expected in self.open.items():
            found = pinning.pin(Image(one[0], made[one], Path()), one[1])
            if not found.meets(expected):
                _warn(Standing(found.title, "differs", expected, found), listener)


def wanted(draft: Draft) -> tuple[Wanted, ...]:
    """The images that labctl gives the lab's machines, sorted, each once; those that Vagrant fetches are left out."""
    if draft.backend.images is None:
        return ()
    return tuple(sorted({machine.boots_from for machine in draft.plan.machines if "/" not in machine.image}))


def foreign(draft: Draft) -> tuple[str, ...]:
    """The boxes that Vagrant fetches by name, which nothing pins."""
    return tuple(sorted({m.image for m in draft.plan.machines if "/" in m.image and draft.backend.images is not None}))


def choose(draft: Draft, listener: Listener = ignore, *, only_locked: bool = False) -> Choice:
    """Hold a lab to its lock file, before anything is made: downloads nothing, builds nothing.

    only_locked: anything but exactly the file's images is an error; otherwise a warning, and without a file
    nothing is chosen. Raises UsageError without a file, LabctlError naming each image that is wrong, SpecError.
    """
    path = lockfile.path_of(draft.spec.file)
    lock = lockfile.read(path)
    if lock is None:
        if only_locked:
            raise UsageError(f"there is no lock file {path}", hint="labctl lock writes it; or leave --locked out.")
        return Choice()
    if only_locked and (unpinned := foreign(draft)):
        raise UsageError(
            f"nothing pins {', '.join(unpinned)}: Vagrant fetches boxes by their name",
            hint="Use images of labctl's own, or leave --locked out.",
        )
    images: dict[Wanted, Image] = {}
    to_make: dict[Wanted, Pin] = {}
    wrong: list[Standing] = []
    for one in wanted(draft):
        standing, image = _decide(_stand(lock, draft, one, listener), draft, only_locked=only_locked)
        if image is not None:
            images[one] = image
        elif standing.expected is not None and standing.found is None:
            to_make[one] = standing.expected
        may_be_fetched = standing.expected and pinning.can_be_fetched(standing.expected, _source(draft))
        if not standing.fine or (only_locked and image is None and not may_be_fetched):
            wrong.append(standing)
    if only_locked and wrong:
        raise LabctlError(
            f"the images of {draft.plan.lab} for {draft.backend.name} are not those of {path.name}",
            details="\n".join(line for standing in wrong for line in standing.lines()),
            hint=_hint(wrong),
        )
    for standing in wrong:
        _warn(standing, listener)
    return Choice(images, to_make, path)


def present(draft: Draft, listener: Listener = ignore) -> Mapping[Wanted, Image] | None:
    """The images of the lab that an ``up`` would take from the store; None where it would have to make one first."""
    found = dict(choose(draft, listener).images)
    for one in wanted(draft):
        if one not in found:
            pin = pinning.cached(*one, _source(draft), listener)
            image = pinning.held(pin, _source(draft)) if pin is not None else None
            if image is None:
                return None
            found[one] = image
    return found


def check(draft: Draft, listener: Listener = ignore) -> tuple[Standing, ...]:
    """How every image of the lab, and of its lock file for this provider, stands. Makes and downloads nothing.

    Raises UsageError where there is no lock file, SpecError for a wrong one.
    """
    path = lockfile.path_of(draft.spec.file)
    lock = lockfile.read(path)
    if lock is None:
        raise UsageError(f"there is no lock file {path}", hint="labctl lock writes it.")
    used = wanted(draft)
    found = [_stand(lock, draft, one, listener) for one in used]
    others = (pin for pin in lock.providers.get(draft.backend.name, ()) if (pin.image, pin.packages) not in used)
    return (*found, *(Standing(pin.title, "unused", pin) for pin in others))


@dataclass(frozen=True, slots=True)
class Locked:
    """What ``lock`` did. pins: all entries for the provider. changed: titles of those that are not as before."""

    file: Path
    pins: tuple[Pin, ...]
    changed: tuple[str, ...]
    unpinned: tuple[str, ...]


def lock(draft: Draft, listener: Listener = ignore, *, update: bool = False) -> Locked:
    """Write the lock file's entries for the draft's provider; those of other providers stay.

    Images that the file does not have yet are made or fetched where they are missing, to know what pins them. Entries
    that it has stay, even where there is something newer; with ``update`` all are pinned anew.
    Raises ImageError, HostError, BusyError, SpecError.
    """
    path = lockfile.path_of(draft.spec.file)
    before = lockfile.read(path) or Lock(path)
    name = draft.backend.name
    pins = []
    for image, packages in wanted(draft):
        known = None if update else before.find(name, image, packages)
        pins.append(known or _pin_now(draft, image, packages, before.find(name, image, packages), listener))
    after = before.with_pins(name, tuple(pins))
    if not path.exists() or after.text() != path.read_text(encoding="utf-8"):
        after.write()
    changed = tuple(pin.title for pin in pins if before.find(name, pin.image, pin.packages) != pin)
    return Locked(path, after.providers[name], changed, foreign(draft))


def _pin_now(draft: Draft, image: str, packages: tuple[str, ...], before: Pin | None, listener: Listener) -> Pin:
    now = pinning.pin(resolve(image, packages, _source(draft), listener), packages)
    return before if before and now.meets(before) and now.versions == before.versions else now


def _decide(standing: Standing, draft: Draft, *, only_locked: bool) -> tuple[Standing, Image | None]:
    """How an image stands after all, and the one to take because the file says so."""
    if standing.expected is None or (standing.state == "differs" and not only_locked):
        return standing, None
    image = pinning.held(standing.expected, _source(draft))
    if image is None:
        return standing, None
    return Standing(standing.title, "locked", standing.expected), image


def _stand(lock: Lock, draft: Draft, one: Wanted, listener: Listener) -> Standing:
    expected = lock.find(draft.backend.name, *one)
    found = pinning.cached(*one, _source(draft), listener)
    title = Pin(one[0], "", one[1]).title
    if expected is None:
        return Standing(title, "missing", None, found)
    if found is None:
        there = pinning.held(expected, _source(draft)) is not None
        return Standing(title, "locked" if there else "not here", expected)
    if found.meets(expected):
        return Standing(title, "locked", expected, found)
    return Standing(title, "differs", expected, pinning.with_versions(found))


def _source(draft: Draft) -> str:
    return draft.backend.images or ""


def _shown(pin: Pin | None) -> str:
    if pin is None:
        return "nothing"
    return f"sha256 {pin.sha256} of {pin.url or 'a local file'}" if pin.sha256 else f"digest {pin.digest}"


def _both_known(standing: Standing) -> bool:
    return bool(standing.expected and standing.found and standing.expected.versions and standing.found.versions)


def _hint(wrong: list[Standing]) -> str:
    if any(standing.state == "missing" for standing in wrong):
        return "Nothing was made or started. labctl lock adds what is missing to the file."
    return (
        "Nothing was made or started. A bundle of the lab brings its images along (labctl bundle); "
        "or see what moved and pin what is here: labctl lock --update."
    )


def _warn(standing: Standing, listener: Listener) -> None:
    lines = [line.strip() for line in standing.lines()]
    listener(Event("warning", "lock", standing.title.partition(" ")[0], "; ".join(lines)))
