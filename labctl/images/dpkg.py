"""Which packages are in a root file system, as its own package manager has noted it."""

from __future__ import annotations

import contextlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

_STATUS = "var/lib/dpkg/status"
_FIELD = re.compile(r"^(Package|Status|Version): (.*)$", re.MULTILINE)


def versions(root_tar: Path) -> dict[str, str]:
    """Package to version of all that is installed in a root file system (a tar archive), sorted.

    Empty where it cannot be told: versions explain a difference, and nothing depends on them.
    """
    with contextlib.suppress(OSError, tarfile.TarError), tarfile.open(root_tar) as tar:
        for member in tar:
            if member.name.removeprefix("./") == _STATUS and (file := tar.extractfile(member)) is not None:
                return dict(sorted(_installed(file.read().decode("utf-8", "replace"))))
    return {}


def _installed(status: str) -> Iterator[tuple[str, str]]:
    for stanza in status.split("\n\n"):
        fields = dict(_FIELD.findall(stanza))
        if fields.get("Status", "").endswith(" installed"):
            yield fields["Package"], fields.get("Version", "")
