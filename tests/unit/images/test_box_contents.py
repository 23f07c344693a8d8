"""What labctl adds to an image to make a box of it, and what it packs around the disk."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree

import pytest

from labctl.errors import ImageError
from labctl.images import initrd
from labctl.images.boxes import guest, model, pack

pytestmark = pytest.mark.unit

DIGEST = "abcdef" + "0" * 58
OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
VBOX = "{http://www.virtualbox.org/ovf/machine}"
USERS = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/bash\n",
    "/etc/group": b"root:x:0:\n",
    "/etc/shadow": b"root:*:1000:0:99999:7:::\n",
    "/etc/gshadow": b"root:*::\n",
}


@dataclass(frozen=True)
class Files:
    """Files by path, as the account's code reads them from a disk."""

    content: dict[str, bytes]

    def read(self, path: str) -> bytes:
        return self.content[path]


def test_the_account_has_a_key_and_no_password() -> None:
    nodes = {node.path: node for node in guest.account(Files(USERS))}
    assert nodes["/etc/passwd"].content.decode().splitlines()[-1] == "vagrant:x:1000:1000::/home/vagrant:/bin/bash"
    assert nodes["/etc/shadow"].content.splitlines() == [*USERS["/etc/shadow"].splitlines(), b"vagrant:*:::::::"]
    assert (nodes["/etc/shadow"].mode, nodes["/etc/shadow"].gid) == (0o640, 42)
    assert all(nodes[path].replaces for path in USERS)
    assert nodes["/home/vagrant/.ssh"].mode == 0o700
    keys = nodes["/home/vagrant/.ssh/authorized_keys"]
    assert (keys.mode, keys.uid, keys.gid) == (0o600, 1000, 1000)
    assert keys.content.count(b"\n") == 1
    assert keys.content.endswith(b" vagrant insecure public key\n")


@pytest.mark.parametrize("line", [b"vagrant:x:7:7::/:/bin/sh\n", b"other:x:1000:1000::/:/bin/sh\n"])
def test_an_image_that_has_such_an_account_is_refused(line: bytes) -> None:
    with pytest.raises(ImageError, match="has an account vagrant or the id 1000"):
        list(guest.account(Files({**USERS, "/etc/passwd": USERS["/etc/passwd"] + line})))


def test_the_initrd_looks_for_the_root_and_does_all_else_as_the_image_s_own() -> None:
    own, box = initrd.INIT.read_text(), guest.init().decode()
    assert "/dev/vda" in own
    assert "/dev/vda" not in box
    assert '$b findfs "$root"' in box
    paragraphs = own.split("\n\n")
    assert all(paragraph in box for index, paragraph in enumerate(paragraphs) if index != 1)
    assert "switch_root /root" in box


def test_the_boot_loader_names_kernel_root_and_both_consoles() -> None:
    script = guest.script("6.1.0-1", UUID(int=5), "console=ttyS0 quiet")
    assert script.splitlines() == [
        "linux /boot/vmlinuz-6.1.0-1 root=UUID=00000000-0000-0000-0000-000000000005 console=tty0 console=ttyS0 quiet",
        "initrd /boot/labctl-initrd",
        "boot",
    ]


def _virtualbox(tmp_path: Path) -> dict[str, bytes]:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(b"disk".ljust(1 << 20, b"\0"))
    pack.virtualbox("labctl-debian-12", DIGEST, raw, tmp_path / "box")
    with tarfile.open(tmp_path / "box") as tar:
        assert all((m.mtime, m.uid, m.gid, m.uname, m.mode) == (0, 0, 0, "", 0o644) for m in tar)
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_a_box_for_virtualbox_says_what_hardware_its_kernel_has_drivers_for(tmp_path: Path) -> None:
    files = _virtualbox(tmp_path)
    assert list(files) == ["Vagrantfile", "box-disk001.vmdk", "box.ovf", "metadata.json"]
    assert json.loads(files["metadata.json"]) == {"provider": "virtualbox"}
    root = ElementTree.fromstring(files["box.ovf"])  # noqa: S314 - written by ourselves
    adapters = list(root.iter(f"{OVF}Adapter"))
    assert [adapter.get("slot") for adapter in adapters] == [str(slot) for slot in range(8)]
    assert {adapter.get("type") for adapter in adapters} == {"virtio"}
    assert [adapter.get("slot") for adapter in adapters if adapter.get("enabled") == "true"] == ["0"]
    assert adapters[0].get("MACAddress") == "080027ABCDEF"
    nats = list(root.iter(f"{OVF}NAT"))
    assert [nat.get("localhost-reachable") for nat in nats] == ["false"] * 8
    assert "config.vm.base_mac = '080027ABCDEF'" in files["Vagrantfile"].decode()
    assert [controller.get("type") for controller in root.iter(f"{OVF}StorageController")] == ["PIIX4"]
    file = next(root.iter(f"{OVF}File"))
    assert file.get(f"{OVF}href") == "box-disk001.vmdk"
    assert file.get(f"{OVF}size") == str(len(files["box-disk001.vmdk"]))
    disk = next(root.iter(f"{OVF}Disk"))
    assert disk.get(f"{OVF}capacity") == str(1 << 20)
    image = next(root.iter(f"{OVF}Image"))
    assert image.get("uuid") == f"{{{disk.get(f'{VBOX}uuid')}}}"


def test_the_same_disk_makes_the_same_box(tmp_path: Path) -> None:
    _virtualbox(tmp_path)
    first = (tmp_path / "box").read_bytes()
    _virtualbox(tmp_path)
    assert (tmp_path / "box").read_bytes() == first


def test_boxes_are_named_after_their_image_and_packages() -> None:
    assert model.box_name("debian-12", ()) == "labctl/debian-12"
    assert model.box_name("debian-12", ("curl", "nginx-light")) == "labctl/debian-12-curl-nginx-light"
    names = {model.box_name("debian-12", tuple(f"package-{n}" for n in range(count))) for count in (9, 10)}
    assert len(names) == 2
    assert all(len(name) == len("labctl/debian-12-") + 12 for name in names)


def test_a_younger_image_makes_a_higher_version() -> None:
    versions = [model.version(seconds) for seconds in (0.0, 9.0, 3600.0, 86400.0, 1795411139.7)]
    assert versions[0] == f"19700101.0.{model.METHOD}"
    assert versions[-1] == f"20261123.51859.{model.METHOD}"
    numbers = [tuple(int(part) for part in version.split(".")) for version in versions]
    assert numbers == sorted(set(numbers))
