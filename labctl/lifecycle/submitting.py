"""``submit``: whether a text is one of an instance's flags, and a note that it was handed in.

Only what nobody can guess is taken: of a choice or a port, saying right or wrong would tell the answer in a few tries,
as would a digest of it. No note has the words of anybody, right or wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from labctl.errors import LabctlError, UsageError
from labctl.host.files import append
from labctl.lifecycle.locate import Running
from labctl.spec.secrets import can_be_guessed, proofs, proves
from labctl.state.record import InstanceFolder, instances
from labctl.verify.model import Check, Verdict

_MOST = 1000  # characters of a flag


@dataclass(frozen=True, slots=True)
class Submission:
    """What was handed in. secret: which one it is, ``""`` for none. before: it was handed in already."""

    secret: str
    points: float | None = None
    before: bool = False


def submit(lab: Running, text: str) -> Submission:
    """Judge a text and note it. Raises UsageError where there is nothing to hand in, HostError on a full disk."""
    known = _known(lab)
    text = text.strip()
    if not text:
        raise UsageError("nothing was handed in")
    name = _which(known, text[:_MOST])
    before = name in found(lab)
    note = {"secret": name, "proof": known[name]} if name else {"secret": "", "of": _owner(lab, text[:_MOST])}
    append(lab.folder.submissions, (json.dumps({"at": round(time.time(), 3), **note}) + "\n").encode())
    points = next((secret.points for secret in lab.plan.secrets if secret.name == name), None)
    return Submission(name, points, before)


def found(lab: Running) -> tuple[str, ...]:
    """Names of the secrets that were handed in, and are what they were then."""
    known = lab.proofs()
    right = {line["secret"] for line in _notes(lab.folder) if known.get(line["secret"], "") == line.get("proof")}
    return tuple(name for name in known if name in right)


def borrowed(lab: Running) -> tuple[str, ...]:
    """Instances of the same class whose flags were handed in here."""
    return tuple(sorted({str(line["of"]) for line in _notes(lab.folder) if line.get("of")}))


def checks(lab: Running) -> tuple[Check, ...]:
    """What is worth points by being handed in, as checks of the lab."""
    there = found(lab)
    return tuple(
        Check(
            f"secrets/{secret.name}",
            f"{secret.name} was handed in",
            Verdict.PASS if secret.name in there else Verdict.FAIL,
            points=secret.points,
        )
        for secret in lab.plan.secrets
        if secret.points is not None
    )


def _known(lab: Running) -> Mapping[str, str]:
    wanted = [secret.name for secret in lab.plan.secrets if not can_be_guessed(secret)]
    if not wanted:
        raise UsageError(f"{lab.plan.lab} has no flags to hand in", hint="They are `secrets:` of the kind flag.")
    known = lab.proofs()
    if not known:
        raise UsageError(
            f"what the flags of {lab.plan.lab}/{lab.plan.instance} are is not known here",
            hint="They are known where the instance was made.",
        )
    return known


def _which(known: Mapping[str, str], text: str) -> str:
    return next((name for name, proof in known.items() if proves(proof, name, text)), "")


def _owner(lab: Running, text: str) -> str:
    """Whose it is, of the other instances of the class; ``""`` for nobody's."""
    for folder in instances() if lab.record.owner else ():
        with suppress(LabctlError):
            record = folder.record()
            ours = record is not None and record.owner == lab.record.owner and folder.lab == lab.plan.lab
            if record is None or not ours or folder.instance == lab.plan.instance or not record.seed:
                continue
            if _which(proofs(record.seed, lab.plan.lab, lab.plan.secrets), text):
                return folder.instance
    return ""


def _notes(folder: InstanceFolder) -> Iterator[dict[str, Any]]:
    """Whatever lines are whole."""
    try:
        text = folder.submissions.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        with suppress(ValueError):
            note = json.loads(line)
            if isinstance(note, dict) and isinstance(note.get("secret"), str):
                yield note
