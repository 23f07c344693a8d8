"""The management path's own services, asked of the real QEMU: a tap in a network namespace, and no machine at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labctl import inside
from labctl.providers.qemu.options import option
from labctl.verify.answers import Answer, batch
from tests.support.inside import Guest

pytestmark = pytest.mark.integration

MAC = "52:54:00:00:00:02"
RRQ = "\0\x01labctl-probe-0123456789abcdef\0octet\0"
Attach = Callable[..., None]


@pytest.fixture
def attach(namespace: str) -> Iterator[Attach]:
    """Join a tap of the namespace, "mgmt", to user-mode networking with options of its own."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.fail("qemu-system-x86_64 is missing: apt-get install qemu-system-x86, or make setup")
    processes: list[subprocess.Popen[bytes]] = []

    def start(**options: str) -> None:
        argv = ["ip", "netns", "exec", namespace, "qemu-system-x86_64", "-M", "none", "-display", "none", "-nodefaults"]
        argv += ["-netdev", option("user", id="way", ipv6="off", **options)]
        argv += ["-netdev", option("tap", id="tap", ifname="mgmt", script="no", downscript="no")]
        argv += [part for name in ("way", "tap") for part in ("-netdev", f"hubport,id=on-{name},hubid=0,netdev={name}")]
        processes.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 60
        look = ["ip", "-n", namespace, "link", "show", "mgmt"]
        while subprocess.run(look, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "the tap never came"
            time.sleep(0.05)
        for words in (f"link set mgmt address {MAC} up", "addr add 10.0.2.15/24 dev mgmt"):
            subprocess.run(["ip", "-n", namespace, *words.split()], check=True)

    yield start
    for process in processes:
        process.kill()
        process.wait()


def python(namespace: str) -> Answer:
    guest = Guest(namespace)
    guest.listen(60, "t", [], 4.0, 6.0, ("mgmt", "10.0.2.2"), [("mgmt", MAC)])
    said = guest.ask("probe", None, [(1, "mgmt", 4, "udp", "10.0.2.2", 69, RRQ, False)])
    guest.collect()
    return batch(said.encode(), [1]).answers[1]


def shell(namespace: str) -> Answer:
    question = "".join(f"\\0{byte:03o}" for byte in RRQ.encode())
    text = f"device mgmt {MAC}\ngateway mgmt 10.0.2.2\nprobe 1 mgmt 4 udp 10.0.2.2 69 {question}\n"
    argv = ["ip", "netns", "exec", namespace, "sh", "-c", inside.SHELL, "labctl", "probe"]
    done = subprocess.run(argv, input=text.encode(), capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["links"] == {"mgmt": "up"}
    return batch(done.stdout, [1]).answers[1]


@pytest.mark.parametrize("ask", [python, shell])
def test_a_closed_gateway_answers_tftp_all_the_same_and_shows_whether_it_serves_a_folder(
    attach: Attach, namespace: str, tmp_path: Path, ask: Callable[[str], Answer]
) -> None:
    """QEMU's ``restrict=on`` leaves its TFTP server on; what it says tells a folder from none."""
    attach(restrict="on")
    said = ask(namespace)
    assert (said.seen, "".join(filter(str.isalpha, said.proof))) == ("answered", "Accessviolation")


@pytest.mark.parametrize("ask", [python, shell])
def test_a_gateway_that_serves_a_folder_shows(
    attach: Attach, namespace: str, tmp_path: Path, ask: Callable[[str], Answer]
) -> None:
    attach(restrict="on", tftp=str(tmp_path))
    said = ask(namespace)
    assert (said.seen, "".join(filter(str.isalpha, said.proof))) == ("answered", "Filenotfound")
