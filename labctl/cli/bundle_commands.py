"""Commands that hold a lab to its images, and carry both to where there is no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.options import InstanceOption, JsonOption, LabArgument, ProviderOption, QuietOption
from labctl.cli.output import progress, remark, say, say_json, table
from labctl.errors import ExitCode, UsageError

BundleArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A bundle, as `labctl bundle` and `labctl export` write it.")
]


def lock(
    lab: LabArgument = Path(),
    provider: ProviderOption = None,
    update: Annotated[bool, typer.Option("--update", help="Pin every image anew, as it is now.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say how the lock file stands; download, build and write nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Pin the lab's images in lab.lock.yaml, a file to commit: `labctl up --locked` starts from these and no others.

    Without --update, images that are pinned already stay as they are. The entries of other providers always stay.
    Exit code 1: --check found an image that is not pinned, pinned and not used, or another one than is pinned.
    """
    from labctl.lifecycle import locate, pins

    if check and update:
        raise UsageError("--check writes nothing, and --update writes", hint="Choose one of the two.")
    draft = locate.draft(lab, provider=provider)
    with progress(quiet or as_json) as listener:
        if check:
            standings = pins.check(draft, listener)
        else:
            done = pins.lock(draft, listener, update=update)
    if not check:
        if as_json:
            say_json({"provider": draft.backend.name, **{key: getattr(done, key) for key in done.__slots__}})
            return ExitCode.OK
        for title in done.changed:
            say(f"pinned {title}")
        say(f"{done.file}: {len(done.pins)} images for {draft.backend.name}" + ("" if done.changed else ", as before"))
        if done.unpinned:
            remark(f"Nothing pins {', '.join(done.unpinned)}: Vagrant fetches boxes by their name.")
        return ExitCode.OK
    wrong = [standing for standing in standings if not standing.fine]
    if as_json:
        say_json({"provider": draft.backend.name, "fine": not wrong, "images": standings})
    else:
        rows = [(s.title, s.state, *((p.digest[:12] if p else "-") for p in (s.expected, s.found))) for s in standings]
        table(("IMAGE", "STATE", "LOCKED", "HERE"), rows)
        for line in (line for standing in wrong for line in standing.lines()):
            remark(line)
    return ExitCode.ERROR if wrong else ExitCode.OK


def bundle(
    lab: LabArgument = Path(),
    provider: ProviderOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write.", show_default="LAB.labz here"),
    ] = None,
    of_class: Annotated[
        bool,
        typer.Option("--class", help="LAB is a class: one file for all its students, who come up with a token each."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put the lab and all its images into one file: `labctl up FILE` needs no network then.

    Where the lab is locked for the provider, the pinned images go in. Hidden folders such as .git stay out. With
    --class the lab's folder `teacher` stays out too, and where the lab has secrets `up` asks for a student's token:
    `labctl class handout --bundle FILE` writes it on everybody's sheet.
    """
    from labctl.lifecycle import bundle as recipe
    from labctl.lifecycle import locate
    from labctl.lifecycle.classroom import luggage
    from labctl.spec import classfile

    with progress(quiet or as_json) as listener:
        if of_class:
            done = luggage.pack(classfile.load(lab), output, provider=provider, listener=listener)
        else:
            done = recipe.bundle(locate.draft(lab, provider=provider), output, listener)
    if as_json:
        say_json(done)
        return
    inside = f"{done.files} files, {len(done.images)} images for {done.provider}"
    say(f"{done.file}: {done.size / (1 << 20):.1f} MiB, {inside}")
    say(f"sha256 {done.sha256}")
    remark(f"Next, anywhere: labctl up {done.file}")


def export(
    lab: Annotated[Path, typer.Argument(metavar="LAB", help="The lab: a folder with a lab.yaml, or the file itself.")],
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="See `labctl snapshot list`.")],
    instance: InstanceOption = "default",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file to write.", show_default="LAB-CHECKPOINT.labz here"
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put the lab, its images and one of its checkpoints into one file: `labctl up FILE` goes on from there.

    On any host with qemu, without a network, as often as one likes. What is in the machines is in the file, their SSH
    host keys too; other checkpoints, what came later and the key that logs in are not. The machines go on meanwhile.
    """
    from labctl.lifecycle import export as recipe
    from labctl.lifecycle import locate

    with progress(quiet or as_json) as listener:
        running = locate.find(lab, instance=instance, listener=listener)
        draft = locate.draft(Path(running.record.spec_file), instance=instance)
        done = recipe.export(running, draft, checkpoint, output, listener)
    if as_json:
        say_json(done)
        return
    written = done.bundle
    say(f"{written.file}: {written.size / (1 << 20):.1f} MiB, {written.lab} as of {done.checkpoint}")
    say(f"sha256 {written.sha256}")
    if done.cold:
        remark(f"{', '.join(done.cold)} will boot: an older labctl saved this checkpoint, and not which host it needs.")
    remark(f"Next, anywhere: labctl up {written.file}")


def unbundle(
    file: BundleArgument,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Where the lab goes.", show_default="a folder with the lab's name"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a bundle, then put its images into the image store and its lab into a folder.

    Nothing is there before every digest in the file was found right. Repeating it changes nothing.
    """
    from labctl.lifecycle.unbundle import unbundle as recipe

    with progress(quiet or as_json) as listener:
        done = recipe(file, folder, listener)
    if as_json:
        say_json(done)
        return
    new = f"{len(done.added)} of {len(done.images)} images were new"
    say(f"{done.folder}: {'unpacked' if done.fresh else 'there already'}; {new}")
    if done.checkpoint is not None:
        remark(f"It has the checkpoint {done.checkpoint.name}, which only labctl up {file} brings in.")
    remark(f"Next: labctl up {done.folder} --provider {done.provider} --locked")
