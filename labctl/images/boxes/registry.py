"""A folder of boxes with a ``metadata.json``: a box catalogue for Vagrant, on a disk or a plain web server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labctl.errors import ImageError
from labctl.host import files
from labctl.images.boxes.model import BoxFile

METADATA = "metadata.json"


def publish(box: BoxFile, folder: Path, description: str, base_url: str = "") -> Path:
    """Put a box into ``folder`` beside those of other versions and providers; returns the path of its metadata.json.

    base_url: where the folder will be found on the web; without it the catalogue names files on this computer, since
    Vagrant takes no relative addresses. Raises ImageError where the folder is the catalogue of another box.
    """
    catalogue = folder / METADATA
    known = _read(catalogue, box.name)
    name = f"{box.name.replace('/', '-')}-{box.version}-{box.provider}.box"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{name}.partial"
        shutil.copyfile(box.path, partial)
        partial.replace(folder / name)
    except OSError as error:
        raise files.explained(folder, error) from error
    url = f"{base_url.rstrip('/')}/{name}" if base_url else (folder / name).resolve().as_uri()
    files.write_json(catalogue, merged(known, box, description, url))
    return catalogue


def merged(known: Mapping[str, Any], box: BoxFile, description: str, url: str) -> dict[str, Any]:
    """A box catalogue with this box in it. known: the catalogue so far, or nothing.

    Form: Vagrant, "Creating a Base Box", "Box Metadata". The architecture is read by Vagrant 2.4 and later.
    """
    versions = {entry["version"]: list(entry["providers"]) for entry in known.get("versions", [])}
    others = [entry for entry in versions.get(box.version, []) if entry["name"] != box.provider]
    new = {
        "name": box.provider,
        "url": url,
        "checksum_type": "sha256",
        "checksum": box.sha256,
        "architecture": "amd64",
        "default_architecture": True,
    }
    versions[box.version] = sorted([*others, new], key=lambda entry: str(entry["name"]))
    return {
        "name": box.name,
        "description": description,
        "versions": [{"version": version, "providers": versions[version]} for version in sorted(versions, key=_order)],
    }


def _order(version: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (0, part) for part in version.split("."))


def _read(path: Path, name: str) -> Mapping[str, Any]:
    """The catalogue that is in the folder already. Raises ImageError where it is none, or another box's."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["name"] == name and all(entry["version"] and entry["providers"] for entry in known["versions"]):
            return dict(known)
        said = f"it is the catalogue of {known['name']}"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"it is no box catalogue ({type(error).__name__})"
    raise ImageError(f"{path} is in the way: {said}", hint=f"Choose another folder for {name}, or remove that file.")
