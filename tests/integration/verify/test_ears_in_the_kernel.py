"""The filter of the ears in a real kernel: attached, it leaves out what it should and nothing else."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

import pytest

from labctl import inside
from labctl.verify import frames
from labctl.verify.ears_filter import ears_filter

pytestmark = pytest.mark.integration

KNOWN, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.mark.parametrize(("known", "heard"), [([], {KNOWN, OTHER}), ([KNOWN], {OTHER})])
def test_requests_of_known_nics_do_not_wake_the_ears(known: list[str], heard: set[str]) -> None:
    asked = [frames.who_has(mac, ip_address("10.0.0.1"), ip_address("10.0.0.2")).hex() for mac in (KNOWN, OTHER)]
    told = [frames.marked(KNOWN, "0" * 16).hex()]
    script = f"""{inside._program()}
import time
from labctl.inside.listening import tap
from labctl.inside.words import transmit
ears = tap("lo", bytes.fromhex({ears_filter(known).hex()!r}))
transmit({{}}, {[("lo", frame) for frame in (*asked, *told)]!r})
time.sleep(0.2)
try:
    while True:
        frame = ears.recv(256)
        print(frame[6:12].hex(":"), frame[12:14].hex())
except BlockingIOError:
    pass
"""
    argv = ["unshare", "--net", "sh", "-c", f"ip link set lo up; exec {sys.executable} -IS -"]
    done = subprocess.run(argv, input=script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = {tuple(line.split()) for line in done.stdout.splitlines()}
    assert {mac for mac, kind in lines if kind == "0806"} == heard
    assert (KNOWN, "88b5") in lines
