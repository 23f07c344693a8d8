"""The teacher's answer sheet: what the secrets of every seat are."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from labctl.lifecycle.classroom import key
from labctl.lifecycle.classroom.seats import Place
from labctl.spec.classfile import ClassSpec
from labctl.spec.load import load
from labctl.spec.secrets import values

Sheet = Sequence[tuple[str, Mapping[str, str]]]


def sheet(spec: ClassSpec, chosen: Sequence[Place]) -> Sheet:
    """Instance and its secrets by name, for those who are on the roster. Makes the class's key where it has none.

    Raises SpecError for the lab's file, UsageError, HostError.
    """
    lab = load(spec.lab)
    if not lab.secrets:
        return []
    secret = key.make(spec)
    return [
        (place.instance, values(key.seed(secret, place.seat), lab.name, lab.secrets))
        for place in chosen
        if place.seat is not None
    ]


def csv_text(found: Sheet) -> str:
    """A sheet that is not empty as CSV (RFC 4180)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["instance", *found[0][1]])
    writer.writerows([name, *known.values()] for name, known in found)
    return text.getvalue()
