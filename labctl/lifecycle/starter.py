"""``init``: a new lab from one of those that ship with labctl."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from labctl import resources
from labctl.errors import UsageError
from labctl.host.files import write_atomic
from labctl.spec.load import load, schema_text

_SCHEMA = ".lab.schema.json"  # beside the lab, for editors; hidden, because it is nobody's to edit


def templates() -> dict[str, str]:
    """Template name to its description."""
    found = sorted(path.parent for path in resources.path("labs").glob("*/lab.yaml"))
    return {folder.name: load(folder / "lab.yaml").description for folder in found}


def init(target: Path, template: str, *, name: str | None = None) -> Path:
    """Make a lab in ``target`` (created; must hold no lab yet) and give its file. Raises UsageError."""
    source = resources.path("labs") / template
    if not re.fullmatch(r"[a-z0-9-]+", template) or not (source / "lab.yaml").is_file():
        raise UsageError(f"there is no template called {template!r}", hint=f"Templates: {', '.join(templates())}.")
    lab = target / "lab.yaml"
    if lab.exists():
        raise UsageError(f"{lab} exists already", hint="Choose another folder; nothing was changed.")
    if name is not None and _as_name(Path("/") / name) != name:
        hint = "Use small letters, digits and hyphens, a letter first. Nothing was written."
        raise UsageError(f"{name!r} cannot name a lab", hint=hint)
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    write_atomic(target / _SCHEMA, schema_text())
    text = lab.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^name: .*$", f"name: {name or _as_name(target)}", text, count=1)
    write_atomic(lab, text.replace("../../schemas/lab.schema.json", _SCHEMA))
    readme = target / "README.md"
    if readme.exists():
        write_atomic(readme, readme.read_text(encoding="utf-8").replace(f"labs/{template}", target.name or "."))
    load(lab)
    return lab


def _as_name(target: Path) -> str:
    """A lab name out of a folder's name: what cannot stand in one becomes a hyphen."""
    plain = re.sub(r"[^a-z0-9]+", "-", target.resolve().name.lower()).strip("-")
    return plain if plain and plain[0].isalpha() else f"lab-{plain}".rstrip("-")
