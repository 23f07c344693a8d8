"""Bundles as nobody should get them: a good one taken apart, changed, and put together again."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Forgery:
    """A bundle in parts. members: what follows the table of contents, header and content."""

    table: dict[str, Any]
    members: list[tuple[tarfile.TarInfo, bytes]]
    raw_table: bytes | None = None
    tail: bytes = bytes(1024)
    behind: bytes = b""
    order: Callable[[list[bytes]], list[bytes]] = field(default=lambda blocks: blocks)

    @classmethod
    def of(cls, path: Path) -> Forgery:
        with tarfile.open(path) as tar:
            all_members = [(m, f.read()) for m in tar if (f := tar.extractfile(m)) is not None]
        return cls(json.loads(all_members[0][1]), all_members[1:])

    def index(self, name: str) -> int:
        return next(i for i, (member, _) in enumerate(self.members) if member.name == name)

    def replace(self, name: str, content: bytes, *, honest: bool = True) -> None:
        """Another content for a member; honest: its size and digest are right everywhere."""
        at = self.index(name)
        old = hashlib.sha256(self.members[at][1]).hexdigest()
        new, renamed = hashlib.sha256(content).hexdigest(), name
        if honest:
            text = json.dumps(self.table)
            self.table = json.loads(text.replace(old, new))
            entries = [*self.table["files"], *(f for image in self.table["images"] for f in image["files"])]
            for entry in entries:
                if entry["sha256"] == new:
                    entry["size"] = len(content)
            renamed = name.replace(old, new)
        self.members[at] = (plain(renamed, len(content)), content)

    def write(self, path: Path) -> Path:
        table = self.raw_table if self.raw_table is not None else json.dumps(self.table).encode()
        blocks = [padded(plain("manifest.json", len(table)), table)]
        blocks += [padded(member, content) for member, content in self.members]
        whole = b"".join([*self.order(blocks), self.tail])
        path.write_bytes(gzip.compress(whole, 1, mtime=0) + self.behind)
        return path


def plain(name: str, size: int) -> tarfile.TarInfo:
    """The header of an ordinary member."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry


def padded(member: tarfile.TarInfo, content: bytes) -> bytes:
    """A header and its content, as they stand in an archive."""
    header = io.BytesIO(member.tobuf(tarfile.GNU_FORMAT)).getvalue()
    return header + content + bytes(-len(content) % 512)
