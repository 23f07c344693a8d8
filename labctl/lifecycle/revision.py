"""Which commit a lab's folder is at, and whether it is as that commit has it.

A lab's folder comes from somebody else and may bring a ``.git`` of its own, whose settings name programs to run. So git
is only asked what runs none of them: names and digests out of its object store. What the files are now is read here,
without filters, so a file that git keeps in another form (line endings, large files elsewhere) counts as changed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from labctl.errors import LabctlError
from labctl.host.runner import Runner
from labctl.verify.model import Origin

_HARMLESS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never")
_ENVIRONMENT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
_LINK, _SUBMODULE = b"120000", b"160000"


def origin(spec_file: Path, runner: Runner | None = None) -> Origin:
    """Where a lab file comes from, without images. A host without git, or a folder without a commit, is no error."""
    git = runner or Runner(environment=_ENVIRONMENT)
    folder = spec_file.parent
    try:
        top = Path(_ask(git, folder, "rev-parse", "--show-toplevel").decode().rstrip("\n")).resolve()
        commit = _ask(git, folder, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
        tree = _ask(git, folder, "ls-tree", "-r", "-z", commit, ".")
        others = _ask(git, folder, "ls-files", "-z", "--others", "--exclude-standard", ".")
    except (LabctlError, UnicodeDecodeError):
        return Origin(spec_file.name)
    file = spec_file.resolve()
    name = file.relative_to(top).as_posix() if file.is_relative_to(top) else file.name
    return Origin(name, commit, bool(others) or not _as_committed(folder, tree))


def _ask(git: Runner, folder: Path, *words: str) -> bytes:
    return git.run(["git", "-C", folder, *_HARMLESS, *words], changes=False, timeout=30).stdout


def _as_committed(folder: Path, tree: bytes) -> bool:
    """Whether each file of ``git ls-tree -r -z`` (``mode type digest\\tpath``) is as the commit has it."""
    for entry in tree.split(b"\0"):
        if not entry:
            continue
        facts, _, name = entry.partition(b"\t")
        mode, _, digest = facts.split(b" ")
        if mode != _SUBMODULE and not _is(folder / name.decode(errors="surrogateescape"), mode, digest.decode()):
            return False
    return True


def _is(path: Path, mode: bytes, digest: str) -> bool:
    try:
        if (mode == _LINK) != path.is_symlink():
            return False
        content = str(path.readlink()).encode(errors="surrogateescape") if mode == _LINK else path.read_bytes()
    except OSError:
        return False
    kind = hashlib.sha256 if len(digest) == 64 else hashlib.sha1
    return kind(b"blob %d\0" % len(content) + content).hexdigest() == digest
