"""A lab that travels as one file: elsewhere, without a network and with nothing in the cache, it comes up from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command import Labctl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LAB = """\
version: 1
name: travels
provider: qemu
defaults: {image: debian-12, memory: 192 MiB}
networks:
  wire: {subnet: 10.9.0.0/28}
machines:
  one:
    networks: {wire: 10.9.0.1}
    provision: [{file: {source: note, target: /root/note}}]
  two: {networks: {wire: 10.9.0.2}}
"""


@pytest.mark.slow
def test_a_bundle_comes_up_and_is_proven_where_there_is_nothing_else(labctl: Labctl, tmp_path: Path) -> None:
    lab, file = labctl.home / "travels", labctl.home / "travels.labz"
    lab.mkdir()
    (lab / "lab.yaml").write_text(LAB)
    (lab / "note").write_text("it was in the bundle\n")
    labctl.run("bundle", lab, "--output", file)
    room, cache = tmp_path / "room", tmp_path / "cache"
    room.mkdir()
    inside = replace(labctl, home=room, variables={"XDG_CACHE_HOME": str(cache)})
    (lab / "lab.yaml").rename(lab / "gone.yaml")
    try:
        inside.run("up", file)
        (image,) = (cache / "labctl/images").glob("*/manifest.json")
        assert json.loads(image.read_text())["source"] == "bundle"
        assert not (cache / "labctl/packages").exists(), "nothing was built"
        for machine in ("one", "two"):
            record = inside.state / "travels/default/engine/machines" / machine / "machine.json"
            assert json.loads(record.read_text())["image"]["disk"] == str(image.parent / "disk.qcow2")
        assert inside.run("exec", room / "travels", "one", "--", "cat", "/root/note") == "it was in the bundle\n"
        assert inside.json("verify", room / "travels")["summary"]["PASS"] > 0
        changes = inside.json("up", file)["changes"]
        assert {change["action"] for change in changes} == {"keep"}
    finally:
        inside.destroy_all()
