"""What a machine boots: other tools' names of boxes and images, and what labctl has in their place."""

from __future__ import annotations

import re

from labctl.lifecycle.foreign.draft import Draft, Machine
from labctl.spec.problems import quoted

# As the schema has it for image:.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(/[A-Za-z0-9][A-Za-z0-9._-]{0,62})?\Z")
_KALI = re.compile(r"kali|parrot", re.IGNORECASE)
_DEBIAN = re.compile(r"debian|ubuntu|bookworm|bullseye|buster|jammy|noble|focal|bionic|xenial|trusty|precise", re.I)


def choose(draft: Draft, machine: Machine, image: str) -> None:
    """Give a machine the image that the source names, with a note that says what labctl has instead."""
    if not _NAME.match(image):
        what = f"{quoted(image)} is no name that labctl takes" if image else "the source names none"
        machine.notes.append(f"image: debian-12 is a guess; {what}")
        return
    machine.image = image
    own = "attacker (debian-12 with scanners)" if _KALI.search(image) else "debian-12" if _DEBIAN.search(image) else ""
    offer = f", or write labctl's own {own}" if own else ""
    if "/" in image:
        draft.note(f"{image} is a box for Vagrant's providers; for qemu, import an image{offer}")
    else:
        draft.note(f"{image} is no image of labctl's; import one{offer}")
