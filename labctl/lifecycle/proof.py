"""``verify``: show from inside every guest that what should pass passes and nothing else does."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from labctl.events import Listener, ignore
from labctl.host.files import private_folder, write_atomic
from labctl.lifecycle.locate import Running
from labctl.verify.guests import GuestSession
from labctl.verify.model import Report
from labctl.verify.report import to_json
from labctl.verify.run import verify


def prove(
    lab: Running, *, outside: Sequence[str] = (), plug: bool = False, listener: Listener = ignore
) -> tuple[Report, Path]:
    """Probe a running instance and keep the report in its folder.

    outside: ``ADDRESS:PORT`` of hosts that the user wants shown to be out of reach; nobody else's address is sent to.
    plug: a sealed guest without an agent may have its cable plugged in before and after its probes.
    """
    with GuestSession(lab.provider, lab.plan, plug=plug) as session:
        report = verify(lab.plan, session, sealed=lab.record.sealed, outside=outside, listener=listener)
    folder = private_folder(lab.folder.reports)
    path = folder / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    write_atomic(path, json.dumps(to_json(report), indent=2) + "\n", mode=0o600)
    return report, path
