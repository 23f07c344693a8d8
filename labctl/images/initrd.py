"""An initrd of labctl's own: busybox, a few modules and a short script, for a fast direct boot."""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Mapping
from pathlib import Path

from labctl.errors import ImageError

INIT = Path(__file__).parent / "initrd.sh"

# The root disk, the agent's port, entropy and NICs; what they depend on is looked up.
MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio-rng", "virtio_net")
_EMPTY_FOLDERS = ("bin", "dev", "lib", "proc", "root", "sys")


def build(root: Path, modules: tuple[str, ...] = MODULES, init: bytes | None = None) -> bytes:
    """The initrd for the one kernel in an unpacked root file system. The same bytes for the same content.

    modules: names of drivers; what they depend on is added. init: its program, where that is not ``INIT``.
    Raises ImageError where the root lacks a kernel's modules or busybox.
    """
    versions = sorted((root / "usr/lib/modules").glob("*/modules.dep"))
    if len(versions) != 1:
        raise ImageError(
            f"the image has {'no kernel' if not versions else 'several kernels'}",
            hint="A recipe with a release needs one kernel package, such as linux-image-cloud-amd64.",
        )
    busybox = root / "usr/bin/busybox"
    if not busybox.is_file():
        raise ImageError("the image has no busybox", hint="Add busybox-static to the recipe's packages.")
    folder = versions[0].parent
    order = load_order(modules, versions[0].read_text(), (folder / "modules.builtin").read_text())
    files: dict[str, tuple[int, bytes]] = dict.fromkeys(_EMPTY_FOLDERS, (0o040755, b""))
    files["init"] = (0o100755, INIT.read_bytes() if init is None else init)
    files["bin/busybox"] = (0o100755, busybox.read_bytes())
    files["lib/order"] = (0o100644, "".join(f"{Path(m).name.removesuffix('.xz')}\n" for m in order).encode())
    for module in order:
        content = (folder / module).read_bytes()
        name = Path(module).name.removesuffix(".xz")
        files[f"lib/{name}"] = (0o100644, lzma.decompress(content) if module.endswith(".xz") else content)
    return b"".join(_newc(files))


def load_order(wanted: tuple[str, ...], dependencies: str, builtin: str) -> tuple[str, ...]:
    """Paths of modules, each after those it needs.

    dependencies, builtin: the text of ``modules.dep`` (a module's own needs are listed last first) and
    ``modules.builtin``. Raises ImageError for a module that is in neither.
    """
    lines = (line.partition(":") for line in dependencies.splitlines())
    needs = {path: rest.split() for path, _, rest in lines}
    paths = {_name(path): path for path in needs}
    built_in = {_name(path) for path in builtin.splitlines()}
    order: dict[str, None] = {}
    for module in wanted:
        if module in built_in:
            continue
        if module not in paths:
            raise ImageError(f"the image's kernel has no module {module}", hint="Use a kernel with virtio drivers.")
        path = paths[module]
        order |= dict.fromkeys([*reversed(needs[path]), path])
    return tuple(order)


def _name(path: str) -> str:
    return Path(path).name.partition(".ko")[0]


def _newc(files: Mapping[str, tuple[int, bytes]]) -> Iterator[bytes]:
    """A cpio archive in the form that kernels unpack (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    for number, (name, (mode, content)) in enumerate([*sorted(files.items()), ("TRAILER!!!", (0, b""))], start=1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + path
        yield header + b"\0" * (-len(header) % 4)
        yield content + b"\0" * (-len(content) % 4)
