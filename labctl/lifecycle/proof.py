"""``verify``: show from inside every guest that what should pass passes and nothing else does."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labctl.errors import LabctlError
from labctl.events import Listener, ignore
from labctl.host.files import private_folder, write_atomic
from labctl.lifecycle import checking, revision
from labctl.lifecycle.checking import Choice
from labctl.lifecycle.locate import Running
from labctl.plan.model import LabPlan
from labctl.verify import selftest
from labctl.verify.guests import GuestSession
from labctl.verify.model import MachineImage, Report
from labctl.verify.reports import Changes, changes, junit, page, to_json
from labctl.verify.run import verify
from labctl.verify.selftest import Found

_FILES = ("report.json", "junit.xml", "report.html")


@dataclass(frozen=True, slots=True)
class Proof:
    """A report, where it is kept, and what it was compared with. since: None for the instance's first report."""

    report: Report
    path: Path
    plan: LabPlan
    since: Changes | None


def prove(
    lab: Running,
    *,
    outside: Sequence[str] = (),
    plug: bool = False,
    checks: Choice = checking.USUAL,
    listener: Listener = ignore,
) -> Proof:
    """Probe a running instance, then run the lab's own checks, and keep the report in its folder.

    outside: ``ADDRESS:PORT`` of hosts that the user wants shown to be out of reach; nobody else's address is sent to.
    plug: a sealed guest without an agent may have its cable plugged in before and after its probes.
    Raises UsageError for what cannot be done, HostError where no canary can be planted.
    """
    todo = checking.task(lab, checks)
    if checks.only:
        report = checking.unprobed(lab)
    else:
        with GuestSession(lab.provider, lab.plan, plug=plug) as session:
            report = verify(lab.plan, session, sealed=lab.record.sealed, outside=outside, listener=listener)
    report = checking.complete(report, lab, todo, checks, plug=plug, listener=listener)
    origin = revision.origin(Path(lab.record.spec_file))
    report = replace(report, origin=replace(origin, images=_images(lab)))
    folder = private_folder(lab.folder.reports)
    document, before = to_json(report), _latest(folder) if report.flows else None
    path = folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(report.finished))}.json"
    write_atomic(path, json.dumps(document, indent=2) + "\n", mode=0o600)
    return Proof(report, path, lab.plan, changes(before, document))


def self_test(lab: Running, listener: Listener = ignore) -> tuple[Found, ...]:
    """Plant leaks in a running instance that end by themselves, and say which of them a verification shows."""
    with GuestSession(lab.provider, lab.plan) as session:

        def judged() -> Report:
            return verify(lab.plan, session, sealed=lab.record.sealed, listener=listener)

        found, _ = selftest.run(lab.plan, session, judged)
    return found


def write(proof: Proof, folder: Path) -> tuple[Path, ...]:
    """Write the report as JSON, as JUnit's XML and as a page into a folder, and give the paths. Raises HostError."""
    document = to_json(proof.report)
    texts = (json.dumps(document, indent=2) + "\n", junit(document), page(document, proof.plan, proof.since))
    for name, text in zip(_FILES, texts, strict=True):
        write_atomic(folder / name, text)
    return tuple(folder / name for name in _FILES)


def _images(lab: Running) -> tuple[MachineImage, ...]:
    try:
        digests = lab.provider.image_digests(lab.plan)
    except LabctlError:
        digests = {}
    return tuple(MachineImage(m.name, m.image, digests.get(m.name, "")) for m in lab.plan.machines)


def _latest(folder: Path) -> Mapping[str, Any] | None:
    """The newest report in a folder that is JSON and says of flows; None where there is none."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(document, dict) and document.get("flows"):
            return document
    return None
