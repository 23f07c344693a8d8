"""``bundle``: a lab with all its images in one file, for a room without a network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import UsageError
from labctl.events import Event, Listener, ignore
from labctl.host import files
from labctl.images import Image, pinning, transfer
from labctl.images.pinning import Pin
from labctl.images.transfer import Parcel
from labctl.lifecycle import archive, converge, lab_folder, lockfile, pins
from labctl.lifecycle.lab_folder import LOCK_NAME, TEACHERS
from labctl.lifecycle.locate import Draft
from labctl.lifecycle.lockfile import Lock
from labctl.lifecycle.manifest import Carried, LabFile, Manifest
from labctl.lifecycle.pins import Wanted


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundle as it was written. size is in bytes; images and skipped are for people."""

    file: Path
    lab: str
    provider: str
    size: int
    sha256: str
    files: int
    images: tuple[str, ...]
    skipped: tuple[str, ...]


def bundle(draft: Draft, output: Path | None = None, listener: Listener = ignore, *, of_class: str = "") -> Bundled:
    """Write the lab's folder, a lock file and all images for the draft's provider to one file.

    output: the file, by default ``LAB.labz`` in the current folder. Where the lab has a lock file with entries for this
    provider, its images are the ones that go in; otherwise the current ones, made or fetched where they are missing.
    of_class: the class that it is for; what is the teacher's stays out then.
    The same lab and images give the same bytes. Raises UsageError, ImageError, HostError, SpecError.
    """
    target = output or Path(f"{draft.plan.lab}{archive.SUFFIX}")
    check_output(target)
    if foreign := pins.foreign(draft):
        raise UsageError(
            f"labctl does not have {', '.join(foreign)}, which Vagrant fetches by name", hint="Use labctl's own images."
        )
    path = lockfile.path_of(draft.spec.file)
    lock = lockfile.read(path) or Lock(path)
    return pack(draft, target, lock, _digests(draft, lock, listener), of_class=of_class, listener=listener)


@dataclass(frozen=True, slots=True)
class Cargo:
    """A checkpoint that goes in. sources: the file of each of its disks, by digest."""

    checkpoint: Carried
    sources: Mapping[str, Path]


def pack(
    draft: Draft,
    target: Path,
    lock: Lock,
    digests: Mapping[Wanted, str],
    *,
    cargo: Cargo | None = None,
    of_class: str = "",
    listener: Listener = ignore,
) -> Bundled:
    """Write a lab's folder, images and a checkpoint to a file. digests: of the images. Raises as ``bundle`` does."""
    began = time.monotonic()
    pinned, travellers = _parcels(draft, lock, digests)
    path, lock = lock.file, lock.with_pins(draft.backend.name, tuple(pinned))
    collected = lab_folder.collect(draft.spec, (target.absolute(), path), without=TEACHERS if of_class else "")
    for reason in collected.skipped:
        listener(Event("warning", "bundle", message=f"left out {reason}"))
    with tempfile.TemporaryDirectory(prefix="labctl-bundle-") as scratch:
        written = Path(scratch) / LOCK_NAME
        written.write_bytes(lock.text().encode())
        lab_files = [
            *zip(collected.files, collected.sources, strict=True),
            (LabFile(LOCK_NAME, written.stat().st_size, files.digest(written)), written),
        ]
        lab_files.sort(key=lambda pair: pair[0].path)
        parcels = tuple(parcel for parcel, _ in travellers)
        carried = cargo.checkpoint if cargo else None
        contents = Manifest(
            draft.plan.lab, draft.backend.name, tuple(f for f, _ in lab_files), parcels, carried, of_class=of_class
        )
        sources = {f"lab/{file.path}": path for file, path in lab_files}
        for parcel, folder in travellers:
            sources |= {f"images/{part.sha256}": folder / part.name for part in parcel.parts}
        sources |= {f"checkpoint/{sha256}": path for sha256, path in (cargo.sources if cargo else {}).items()}
        blobs = tuple(contents.blobs())
        total = sum(blob.size for blob in blobs)

        def heard(done: int) -> None:
            listener(Event("progress", "bundle", message=f"{done >> 20} of {total >> 20} MiB"))

        listener(Event("started", "bundle"))
        sha256 = archive.write(target, contents, [sources[blob.name] for blob in blobs], heard)
    listener(Event("done", "bundle", seconds=time.monotonic() - began))
    titles = tuple(parcel.pin.title for parcel in parcels)
    size = target.stat().st_size
    return Bundled(
        target, contents.lab, contents.provider, size, sha256, len(contents.files), titles, collected.skipped
    )


def _digests(draft: Draft, lock: Lock, listener: Listener) -> dict[Wanted, str]:
    """The images that the lock file names, or the current ones."""
    held = draft.backend.name in lock.providers
    choice = pins.choose(draft, listener, only_locked=True) if held else pins.Choice()
    images = converge.boot_images(draft.plan, draft.backend.images, listener, choice.images)
    return {machine.boots_from: images[machine.name].digest for machine in draft.plan.machines if images}


def _parcels(draft: Draft, lock: Lock, digests: Mapping[Wanted, str]) -> tuple[list[Pin], list[tuple[Parcel, Path]]]:
    """The images that go in, pinned, and each as a parcel with the folder of its files."""
    found = []
    for name, packages in pins.wanted(draft):
        pin = pinning.pin(Image(name, digests[name, packages], Path()), packages)
        known = lock.find(draft.backend.name, name, packages)
        found.append(known if known and known.digest == pin.digest else pin)
    return found, [transfer.parcel(pin, draft.backend.images or "") for pin in found]


def check_output(target: Path) -> None:
    """Refuse to write where something else is. Raises UsageError."""
    if target.exists():
        if not target.is_file():
            raise UsageError(f"{target} is no file", hint="Name a file: labctl bundle --output FILE.")
        with target.open("rb") as file:
            if file.read(2) not in (archive.GZIP, b""):
                raise UsageError(f"{target} is there already, and is no bundle", hint="Name another file.")
    elif not target.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {target.absolute().parent}")
