"""Commands about this host: what it can run, and the images it keeps."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.options import JsonOption, LabArgument, ProviderOption, QuietOption, YesOption
from labctl.cli.output import agreed, progress, say, say_json, table

if TYPE_CHECKING:
    from labctl.images import BoxFile

image = typer.Typer(
    no_args_is_help=True,
    help="Images: list, build, make boxes of, prepare, pull, import, remove.",
    rich_markup_mode="markdown",
)


def doctor(as_json: JsonOption = False) -> None:
    """Say what this host can run, what it lacks, and the command that mends it."""
    from labctl.lifecycle.doctor import examine

    report = examine()
    if as_json:
        say_json(report)
        return
    say(f"Host      {report.system}, Python {report.python}")
    say(f"State     {report.state} ({report.free_bytes >> 30} GiB free)")
    say(f"Images    {report.cache}")
    say(f"Provider  {report.chosen}")
    for provider in report.providers:
        say(f"\n{provider.name}: {provider.summary}: {'ready' if provider.usable else 'not ready'}")
        for lack in provider.lacks:
            say(f"  {'✗' if lack.fatal else '!'} {lack.what}")
            say(f"    {lack.remedy}")
        if provider.capabilities is not None:
            found = dataclasses.asdict(provider.capabilities)
            say(f"  can: {', '.join(name for name, can in found.items() if can is True)}")
            say(f"  cannot: {', '.join(name for name, can in found.items() if can is False) or 'nothing is missing'}")
            if provider.capabilities.checkpoints:
                say(f"  a checkpoint's machines: {provider.capabilities.consistency}")


@image.command("list")
def image_list(
    boxes: Annotated[bool, typer.Option("--boxes", help="The Vagrant boxes in the cache instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the images of the catalogue and what is in the cache."""
    from labctl.images import list_boxes, list_images

    if boxes:
        _show_boxes(list_boxes(), as_json)
        return
    found = list_images()
    if as_json:
        say_json(found)
        return
    table(
        ("IMAGE", "SOURCE", "CACHED", "SIZE", "DIGEST", "DESCRIPTION"),
        [
            (
                i.name,
                i.source,
                "yes" if i.cached else "no",
                f"{i.size >> 20} MiB" if i.size else "-",
                i.digest[:12],
                i.description,
            )
            for i in found
        ],
    )


def _show_boxes(found: Sequence[BoxFile], as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    table(
        ("BOX", "VERSION", "PROVIDER", "SIZE", "SHA256", "FILE"),
        [(b.name, b.version, b.provider, f"{b.size >> 20} MiB", b.sha256[:12], str(b.path)) for b in found],
    )


@image.command("build")
def image_build(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Images of the catalogue.")],
    again: Annotated[bool, typer.Option("--again", help="Build anew, with today's packages.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build images from distribution packages, where they are not in the cache."""
    from labctl.images import build

    with progress(quiet or as_json) as listener:
        made = [build(name, listener=listener, again=again) for name in names]
    if as_json:
        say_json(made)
    else:
        for one in made:
            say(f"{one.name}  {one.digest[:12]}  {one.disk}")


@image.command("box")
def image_box(
    name: Annotated[str, typer.Argument(help="An image that is built from packages.")],
    provider: Annotated[
        str, typer.Option("--provider", "-p", metavar="NAME", help="Whose box: virtualbox or libvirt.")
    ],
    packages: Annotated[str, typer.Option(metavar="A,B", help="Distribution packages to put into it.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Put it here too, with a metadata.json for `vagrant box add`."
        ),
    ] = None,
    url: Annotated[
        str, typer.Option(metavar="URL", help="With -o: where a web server will show DIR.", show_default="files here")
    ] = "",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a Vagrant box of an image: no box registry is needed. A second call finds it in the cache."""
    from labctl.errors import UsageError
    from labctl.images import publish_box, resolve_box

    if url and output is None:
        raise UsageError("--url says where the folder of --output will be found", hint="Add -o DIR.")
    with progress(quiet or as_json) as listener:
        made = resolve_box(name, [word for word in packages.split(",") if word], provider, listener)
        catalogue = publish_box(made, output, url) if output is not None else None
    if as_json:
        say_json(made)
        return
    say(f"{made.name}  {made.version}  {made.provider}  {made.size >> 20} MiB  {made.sha256[:12]}  {made.path}")
    if catalogue is not None:
        say(f"vagrant box add {shlex.quote(str(catalogue))} --provider {made.provider}")


@image.command("prepare")
def image_prepare(
    lab: LabArgument = Path(), provider: ProviderOption = None, quiet: QuietOption = False, as_json: JsonOption = False
) -> None:
    """Build or fetch every image that a lab needs, packages included, so that `up` itself needs no network."""
    from labctl.lifecycle import converge, locate, pins

    draft = locate.draft(lab, provider=provider)
    with progress(quiet or as_json) as listener:
        choice = pins.choose(draft, listener, only_locked=False)
        images = converge.boot_images(draft.plan, draft.backend.images, listener, choice.images)
    if as_json:
        say_json(images)
        return
    made = {one.digest: one for one in images.values()}
    table(("IMAGE", "DIGEST", "DISK"), [(one.name, one.digest[:12], str(one.disk)) for one in made.values()])


@image.command("pull")
def image_pull(
    name: Annotated[str, typer.Argument(help="The name that labs will use.")],
    url: Annotated[str | None, typer.Argument(help="Where the disk image is.", show_default="the catalogue's")] = None,
    sha256: Annotated[
        str | None, typer.Option(help="The SHA-256 of the file, 64 hexadecimal digits; needed with a URL.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Fetch a disk image by URL; nothing is used before its digest is right."""
    from labctl.images import pull

    with progress(quiet) as listener:
        one = pull(name, url, sha256, listener=listener)
    say(f"{one.name}  {one.digest[:12]}  {one.disk}")


@image.command("import")
def image_import(
    name: Annotated[str, typer.Argument(help="The name that labs will use.")],
    file: Annotated[Path, typer.Argument(help="A qcow2, raw or VMDK disk image.")],
    user: Annotated[str, typer.Option(help="The account that labctl logs in as.")] = "root",
    quiet: QuietOption = False,
) -> None:
    """Take a local disk image into the cache. The guest in it must run the QEMU guest agent."""
    from labctl.images import import_file

    with progress(quiet) as listener:
        one = import_file(name, file, listener=listener, user=user)
    say(f"{one.name}  {one.digest[:12]}  {one.disk}")


@image.command("verify")
def image_verify(names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Images in the cache.")]) -> int:
    """Read cached images whole and compare their digests. Exit code 1 where one is damaged."""
    from labctl.images import verify

    damaged = [line for name in names for line in verify(name)]
    for line in damaged:
        say(line)
    if not damaged:
        say(f"{', '.join(names)}: every file is what it was when it was made")
    return int(bool(damaged))


@image.command("rm")
def image_rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Images to remove from the cache.")],
    yes: YesOption = False,
) -> None:
    """Remove images from the cache. Labs that were made from them need them to start again."""
    from labctl.images import remove

    if not agreed(f"Remove {', '.join(names)} from the cache?", yes):
        return
    for name in names:
        for gone in remove(name):
            say(f"removed {gone}")
