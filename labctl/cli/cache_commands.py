"""Commands about the cache that all labs share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.options import DryRunOption, JsonOption
from labctl.cli.output import remark, say, say_json, size, table

if TYPE_CHECKING:
    from labctl.lifecycle.cache import Kept

cache = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The cache of images, boxes, templates and packages: what it holds, and removing what no lab uses.",
)


@cache.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List what is in the cache, what it takes on the disk, and which labs cannot start without it."""
    from labctl.lifecycle.cache import contents

    found = contents()
    if as_json:
        say_json([_fields(one) for one in found])
        return
    rows = [(o.stock.kind, o.stock.name, size(o.stock.size), _day(o), ", ".join(o.users), o.why) for o in found]
    table(("KIND", "NAME", "SIZE", "USED", "LABS", "MAY GO"), rows)
    remark(f"{size(sum(one.stock.size for one in found))} in all. `labctl cache prune` removes what may go.")


@cache.command("prune")
def prune(
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that no lab uses and that is made again.")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove templates that nobody has used for two weeks, and images that no lab uses and that newer ones replace.

    With --all, all that labctl makes again when it is wanted; an image made again has the packages of that day, so a
    lock file may then call for one that is no more. What was pulled, imported or came in a bundle stays in any case:
    `labctl image rm NAME` removes it.
    """
    from labctl.lifecycle import cache as caches

    gone = caches.prune(everything=everything, dry_run=dry_run)
    freed = sum(one.stock.size for one in gone)
    if as_json:
        say_json({"removed": [_fields(one) for one in gone], "bytes": freed, "dry_run": dry_run})
        return
    for one in gone:
        say(f"{'would remove' if dry_run else 'removed'} {one.stock.kind} {one.stock.name}: {one.why}")
    say(f"{size(freed)} {'would be' if dry_run else 'are'} free.")


def _day(one: Kept) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(one.stock.used))


def _fields(one: Kept) -> dict[str, object]:
    stock = one.stock
    return {
        "kind": stock.kind,
        "name": stock.name,
        "folder": stock.folder,
        "size": stock.size,
        "used": stock.used,
        "labs": one.users,
        "made_again": stock.remade,
        "may_go": one.why,
    }
