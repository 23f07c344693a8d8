"""What a real QEMU says of the forwards into a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.host.files import private_folder
from labctl.host.ports import candidates
from labctl.host.runner import Runner
from labctl.providers.qemu import way_in
from labctl.providers.qemu.bare import Bare
from labctl.providers.qemu.qmp import monitor
from tests.support.plans import MANAGEMENT

pytestmark = pytest.mark.integration


def test_a_forward_beside_labctls_own_is_told(tmp_path: Path) -> None:
    private_folder(tmp_path / "run")
    engine = Bare(f"labctl-way-in-{tmp_path.name}", tmp_path / "run" / "qmp", tmp_path / "log")
    port, other = next(pair for pair in zip(*[candidates(4711)] * 2, strict=False))
    arguments = [part for value in way_in.netdevs(MANAGEMENT, port) for part in ("-netdev", value)]
    engine.start(arguments, Runner())
    try:
        with monitor(engine.socket) as session:
            assert list(way_in.strange_forwards(session, MANAGEMENT, port)) == []
            session.human(f"hostfwd_add mgmt tcp:0.0.0.0:{other}-10.0.2.15:22")
            session.human(f"hostfwd_add mgmt udp:127.0.0.1:{other}-10.0.2.15:9")
            assert sorted(way_in.strange_forwards(session, MANAGEMENT, port)) == [
                f"tcp port {other} of every address of this host leads to its port 22",
                f"udp port {other} of this host's 127.0.0.1 leads to its port 9",
            ]
            session.human(f"hostfwd_remove mgmt tcp:0.0.0.0:{other}")
            session.human(f"hostfwd_remove mgmt udp:127.0.0.1:{other}")
            assert list(way_in.strange_forwards(session, MANAGEMENT, port)) == []
            assert list(way_in.strange_forwards(session, MANAGEMENT, port + 1)) != []
    finally:
        engine.stop()
