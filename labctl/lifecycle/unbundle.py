"""``unbundle``: a lab and its images out of a file that nobody has to be trusted for."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError, UsageError
from labctl.events import Event, Listener, ignore
from labctl.host import files
from labctl.images import leftovers, transfer
from labctl.images.transfer import Delivery
from labctl.lifecycle import archive, lab_folder, lockfile, manifest
from labctl.lifecycle.archive import Reader
from labctl.lifecycle.lab_folder import BUNDLE_MARK, CLASS_MARK, LOCK_NAME
from labctl.lifecycle.manifest import Blob, Carried, CarriedDisk, LabFile, Manifest
from labctl.providers import PROVIDERS

_SPARE = 64 << 20  # bytes that stay free on a disk
_MARK_TEXT = """\
This lab came out of a bundle. If it has checks of its own, they are programs that would run on this computer with your
rights, so labctl verify leaves them out. Read them; labctl verify --checks runs them and removes this file.
"""


@dataclass(frozen=True, slots=True)
class Unbundled:
    """What came out of a bundle. added: images that the store did not have. fresh: whether the folder is new."""

    folder: Path
    lab: str
    provider: str
    images: tuple[str, ...]
    added: tuple[str, ...]
    fresh: bool
    checkpoint: Carried | None = None


Hold = Callable[[Manifest], Path | None]
"""Where the disks of a bundle's checkpoint go, by their digests, or None. Asked before anything is written."""


def unbundle(
    file: Path, folder: Path | None = None, listener: Listener = ignore, *, hold: Hold = lambda _: None
) -> Unbundled:
    """Check a bundle from end to end; only then put its images into the store and its lab into ``folder``.

    folder: by default one with the lab's name in the current folder. One that is there already must hold the very same
    lab, and is left as it is. Safe to repeat. Raises LabctlError for a bundle that is not whole and right, UsageError
    for a folder in the way, HostError on a full disk; nothing is left behind then.
    """
    with archive.reading(file) as reader, contextlib.ExitStack() as stack:
        contents = reader.contents
        if contents.provider not in PROVIDERS:
            manifest.refuse(f"it is for the provider {contents.provider!r}, which this labctl does not know")
        stage = hold(contents) if contents.checkpoint else None
        place = folder or Path(contents.lab)
        target = place.absolute()
        fresh = _is_free(target, contents.files)
        listener(Event("started", "unbundle"))
        began = time.monotonic()
        deliveries = [stack.enter_context(transfer.receive(parcel)) for parcel in contents.images]
        draft = stack.enter_context(_draft(target))
        _check_space(contents, deliveries, target, stage)
        with _written(target):
            _unpack(reader, draft, deliveries, stage, listener)
            files.write_atomic(draft / BUNDLE_MARK, _MARK_TEXT)  # over a file of that name in the bundle
            (draft / CLASS_MARK).unlink(missing_ok=True)
            if contents.of_class:
                files.write_atomic(draft / CLASS_MARK, f"{contents.of_class}\n")
        _check_lock(draft / LOCK_NAME, contents)
        for delivery in deliveries:
            delivery.check()
        undo = stack.enter_context(contextlib.ExitStack())
        for delivery in deliveries:
            undo.callback(delivery.undo)
            delivery.keep()
        with _written(target):
            if fresh:
                _move_in(draft, target)
        undo.pop_all()
        listener(Event("done", "unbundle", seconds=time.monotonic() - began))
    return Unbundled(
        place,
        contents.lab,
        contents.provider,
        tuple(parcel.pin.title for parcel in contents.images),
        tuple(delivery.parcel.pin.title for delivery in deliveries if delivery.kept is not None),
        fresh,
        contents.checkpoint,
    )


def _check_lock(path: Path, contents: Manifest) -> None:
    """The lock file of a bundle and its images must speak of the same things."""
    lock = lockfile.read(path)
    pinned = {(p.image, p.packages, p.digest) for p in lock.providers.get(contents.provider, ())} if lock else set()
    if pinned != {(p.image, p.packages, p.digest) for p in contents.images}:
        manifest.refuse("its lock file names other images than it holds")


def _unpack(
    reader: Reader, draft: Path, deliveries: Sequence[Delivery], stage: Path | None, listener: Listener
) -> None:
    """Everything, in the archive's order; each digest is checked."""
    total, done = sum(blob.size for blob in reader.contents.blobs()), 0

    def heard(count: int) -> None:
        nonlocal done
        done += count
        listener(Event("progress", "unbundle", message=f"{done >> 20} of {total >> 20} MiB"))

    places = {f"images/{sha256}": paths for sha256, paths in _image_places(deliveries).items()}
    if stage is not None:
        places |= {f"checkpoint/{disk.sha256}": [stage / disk.sha256] for disk in _disks(reader.contents)}
    modes = {f"lab/{file.path}": 0o755 if file.executable else 0o644 for file in reader.contents.files}
    for blob in reader.contents.blobs():
        targets = [draft / blob.name.removeprefix("lab/")] if blob.name in modes else places.get(blob.name, [])
        _place(reader, blob, targets, heard)
        if blob.name in modes:
            targets[0].chmod(modes[blob.name])
    reader.end()


def _disks(contents: Manifest) -> Iterator[CarriedDisk]:
    """Of the checkpoint."""
    return (disk for one in contents.checkpoint.machines for disk in one.disks) if contents.checkpoint else iter(())


def _image_places(deliveries: Sequence[Delivery]) -> dict[str, list[Path]]:
    """By digest: where contents of images go; nowhere where the store has them."""
    places: dict[str, list[Path]] = {}
    for delivery in deliveries:
        if delivery.folder is not None:
            for part in delivery.parcel.parts:
                places.setdefault(part.sha256, []).append(delivery.folder / part.name)
    return places


def _place(reader: Reader, blob: Blob, targets: Sequence[Path], heard: archive.Heard) -> None:
    if not targets:
        reader.content(blob, None, heard)
        return
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    with targets[0].open("xb") as out:
        reader.content(blob, out, heard)
    for other in targets[1:]:
        try:
            os.link(targets[0], other)
        except OSError:
            shutil.copyfile(targets[0], other)


def _is_free(target: Path, wanted: Sequence[LabFile]) -> bool:
    """Whether the lab can go there; False where it is there already. Raises UsageError where something else is."""
    if not os.path.lexists(target):
        return True
    if not target.is_dir():
        raise UsageError(f"{target} is in the way", hint="Name another folder: labctl unbundle FILE DIR.")
    if not any(target.iterdir()):
        return True
    if strange := lab_folder.holds(target, wanted):
        raise UsageError(
            f"the folder {target} exists and is not the lab of this bundle: {strange}",
            hint="Nothing was changed. Move that folder away, or name another one: labctl unbundle FILE DIR.",
        )
    return False


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target``, gone afterwards unless it was moved there."""
    with _written(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        leftovers.clear(target.parent, files.remove_tree)
        folder = target.parent / leftovers.folder_name(target.name)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        files.remove_tree(folder)


def _move_in(draft: Path, target: Path) -> None:
    if target.exists():
        target.rmdir()  # it was empty; where it no longer is, this fails
    draft.chmod(0o755)
    draft.rename(target)


@contextlib.contextmanager
def _written(target: Path) -> Iterator[None]:
    """What the system says of a failed write, for people."""
    try:
        yield
    except OSError as error:
        raise files.explained(target, error) from error


def _check_space(contents: Manifest, deliveries: Sequence[Delivery], target: Path, stage: Path | None) -> None:
    """Refuse before the first byte what cannot fit; sizes are those of the table of contents. Raises HostError."""
    images = {p.sha256: p.size for d in deliveries if d.folder is not None for p in d.parcel.parts}
    needs = [(target, sum(file.size for file in contents.files))]
    needs += [(d.folder, sum(images.values())) for d in deliveries if d.folder is not None][:1]
    if stage is not None:  # and as much again, because the machines are saved once when they are here
        needs.append((stage / "disks", 2 * sum({disk.sha256: disk.size for disk in _disks(contents)}.values())))
    for place, size in needs:
        free = shutil.disk_usage(place.parent).free
        if size + _SPARE > free:
            raise HostError(
                f"this bundle needs {(size + _SPARE) >> 20} MiB at {place.parent}, and {free >> 20} MiB are free",
                hint="Free some space and repeat the command; nothing was unpacked.",
            )
