"""The catalogue: images by name, shipped with labctl and added by the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from labctl.errors import ImageError
from labctl.host.folders import state_root
from labctl.images.model import Download, Entry, Recipe
from labctl.spec.nodes import plain
from labctl.spec.problems import Finding, Keys, SpecError, listed, nearest, quoted

SHIPPED = Path(__file__).parent / "catalogue.yaml"
BOX_PROVIDERS = ("virtualbox", "libvirt")

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# Debian policy 5.6.1, and what apt takes beside a name is left out: versions and releases would make names ambiguous.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_RELEASE = re.compile(r"[a-z][a-z0-9]{1,31}")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"[^\x00-\x1f\x7f]{0,200}")


def load() -> dict[str, Entry]:
    """All entries by name; the user's own stand over those that ship. Raises SpecError naming every mistake."""
    entries = read(SHIPPED)
    own = own_file()
    if own.exists():
        entries |= read(own)
    for entry in entries.values():
        _check_base(entry, entries)
    return entries


def own_file() -> Path:
    """Where a user's own additions are looked for."""
    return state_root() / "images.yaml"


def find(name: str, entries: Mapping[str, Entry]) -> Entry:
    """The entry called ``name``. Raises ImageError with the nearest known name."""
    if name in entries:
        return entries[name]
    close = nearest(name, entries)
    meant = f"Did you mean {close}? " if close else ""
    raise ImageError(
        f"there is no image called {quoted(name)}",
        hint=f"{meant}labctl image list shows all; labctl image import and labctl image pull add one.",
    )


def read(path: Path) -> dict[str, Entry]:
    """The entries of one catalogue file. Raises SpecError with every mistake and its place."""
    from labctl.spec import source  # YAML's parser takes long to import, and commands without images need none

    document = source.read(path)
    checker = _Checker()
    entries = checker.catalogue(plain(document.root))
    if checker.findings:
        raise SpecError([document.place(finding, document.root) for finding in checker.findings])
    return entries


def is_sha256(text: str) -> bool:
    """Whether this is a SHA-256 digest: 64 hexadecimal digits in lower case."""
    return _SHA256.fullmatch(text) is not None


def is_url(text: str) -> bool:
    """Whether an image may be fetched from here: http, https, or a local file."""
    parts = urlsplit(text)
    return (parts.scheme in ("http", "https") and bool(parts.hostname)) or (
        parts.scheme == "file" and parts.netloc in ("", "localhost") and bool(parts.path)
    )


def _check_base(entry: Entry, entries: Mapping[str, Entry]) -> None:
    """A recipe's bases must end at a recipe with a release."""
    seen = [entry.name]
    recipe = entry.qemu
    while isinstance(recipe, Recipe) and recipe.base:
        if recipe.base in seen:
            raise ImageError(f"the image {entry.name} is based on itself: {' → '.join([*seen, recipe.base])}")
        seen.append(recipe.base)
        recipe = find(recipe.base, entries).qemu
    if len(seen) > 1 and not isinstance(recipe, Recipe):
        raise ImageError(
            f"the image {entry.name} is based on {seen[-1]}, which is not built from packages",
            hint="Only images with a recipe can be a base.",
        )


@dataclass(slots=True)
class _Checker:
    """Turns plain values into entries and notes what is wrong on the way."""

    findings: list[Finding] = field(default_factory=list)

    def catalogue(self, value: Any) -> dict[str, Entry]:
        top = self._map(value, (), ("version", "images"), ("version", "images"))
        if "version" in top and (top["version"] != 1 or isinstance(top["version"], bool)):
            self._note(("version",), f"{quoted(top['version'])} is not a version of the catalogue", "1")
        images = top.get("images", {})
        if not isinstance(images, dict):
            self._note(("images",), "this must be a map of image names", "name: {qemu: …}")
            return {}
        return {name: self._entry(name, body) for name, body in images.items()}

    def _entry(self, name: str, value: Any) -> Entry:
        keys: Keys = ("images", name)
        if not NAME.fullmatch(name):
            self._note(keys, f"{quoted(name)} cannot be an image's name", "small letters, digits, . _ -", on_key=True)
        body = self._map(value, keys, ("description", "user", "qemu", *BOX_PROVIDERS))
        boxes = {p: self._download(body[p], (*keys, p)) for p in BOX_PROVIDERS if p in body}
        return Entry(
            name,
            description=self._text(body, keys, "description", _LINE, "one line of text"),
            user=self._text(body, keys, "user", _ACCOUNT, "an account's name") or "root",
            qemu=self._qemu(body["qemu"], (*keys, "qemu")) if "qemu" in body else None,
            boxes=boxes,
        )

    def _qemu(self, value: Any, keys: Keys) -> Recipe | Download | None:
        if isinstance(value, dict) and "recipe" in value:
            self._map(value, keys, ("recipe",))
            return self._recipe(value["recipe"], (*keys, "recipe"))
        return self._download(value, keys, "a recipe, or ")

    def _download(self, value: Any, keys: Keys, other: str = "") -> Download:
        """other: what may stand there instead, for people."""
        body = self._map(value, keys, (*(("recipe",) if other else ()), "url", "sha256"))
        for wanted in ("url", "sha256"):
            if isinstance(value, dict) and wanted not in body:
                self._note(keys, f"a source needs {other}url and sha256; {wanted} is missing")
        url = body.get("url", "")
        if "url" in body and not (isinstance(url, str) and is_url(url)):
            self._note((*keys, "url"), f"{quoted(url)} is no place to fetch from", "http://, https:// or file:///")
        return Download(str(url), self._text(body, keys, "sha256", _SHA256, "64 hexadecimal digits, small letters"))

    def _recipe(self, value: Any, keys: Keys) -> Recipe:
        body = self._map(value, keys, ("release", "base", "packages"), ("packages",))
        if ("release" in body) == ("base" in body):
            self._note(keys, "a recipe has either a release or a base", "release: bookworm, or base: debian-12")
        return Recipe(
            packages=self._packages(body, keys),
            release=self._text(body, keys, "release", _RELEASE, "a release's code name"),
            base=self._text(body, keys, "base", NAME, "an image's name"),
        )

    def _packages(self, body: Mapping[str, Any], keys: Keys) -> tuple[str, ...]:
        packages = body.get("packages", [])
        if not isinstance(packages, list):
            self._note((*keys, "packages"), "this must be a list of packages", "[nginx-light, curl]")
            return ()
        for index, package in enumerate(packages):
            if not (isinstance(package, str) and PACKAGE.fullmatch(package)):
                self._note((*keys, "packages", index), f"{quoted(package)} cannot be a package's name")
        return tuple(dict.fromkeys(str(package) for package in packages))

    def _text(self, body: Mapping[str, Any], keys: Keys, key: str, form: re.Pattern[str], allowed: str) -> str:
        value = body.get(key, "")
        if key in body and not (isinstance(value, str) and form.fullmatch(value)):
            self._note((*keys, key), f"{quoted(value)} is not right here", allowed)
            return ""
        return str(value)

    def _map(self, value: Any, keys: Keys, known: tuple[str, ...], needed: tuple[str, ...] = ()) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._note(keys, "this must be a map", listed(known))
            return {}
        for key in value:
            if key not in known:
                self._note((*keys, key), f"unknown key {quoted(key)}", listed(known), nearest(key, known), on_key=True)
        for key in needed:
            if key not in value:
                self._note(keys, f"the key {key} is missing")
        return {key: value[key] for key in known if key in value}

    def _note(self, keys: Keys, message: str, allowed: str = "", near: str = "", *, on_key: bool = False) -> None:
        self.findings.append(Finding(keys, message, allowed=allowed, nearest=near, on_key=on_key))
