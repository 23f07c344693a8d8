"""The lock file beside a lab: which images, exactly, the lab was written and tried with, for each provider."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labctl.errors import UsageError
from labctl.host.files import write_atomic
from labctl.images import catalogue
from labctl.images.pinning import Pin
from labctl.providers import PROVIDERS
from labctl.spec import scalars
from labctl.spec.nodes import plain
from labctl.spec.problems import Finding, Keys, SpecError, listed, nearest, quoted

VERSION = 1

_HEAD = """\
# Written by `labctl lock`: the images that this lab starts from, pinned. Commit this file; do not edit it.
# `labctl up --locked` starts from these and from nothing else. `labctl lock --update` pins what there is now.
"""
_HINT = "labctl writes this file: take it from version control again, or remove it and run labctl lock."
_ENTRY = ("image", "packages", "digest", "url", "sha256", "versions")
_DPKG_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~:-]{0,127}")
_URL = re.compile(r"[\x21-\x7e]{1,2000}")  # nothing that a terminal would take for a command
_PLAIN = re.compile(r"[a-z][a-z0-9.+-]*")


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file: provider to the images that it is held to, sorted by image and packages."""

    file: Path
    providers: Mapping[str, tuple[Pin, ...]] = field(default_factory=dict)

    def find(self, provider: str, image: str, packages: tuple[str, ...]) -> Pin | None:
        """What an image with packages (sorted) is held to; None where the file does not have it."""
        wanted = (image, packages)
        return next((pin for pin in self.providers.get(provider, ()) if (pin.image, pin.packages) == wanted), None)

    def with_pins(self, provider: str, pins: tuple[Pin, ...]) -> Lock:
        """The same with other entries for one provider; those of the others stay."""
        ordered = tuple(sorted(pins, key=lambda pin: (pin.image, pin.packages)))
        return Lock(self.file, {**self.providers, provider: ordered})

    def text(self) -> str:
        """The file's text. The same lock gives the same bytes."""
        lines = [_HEAD, f"version: {VERSION}\n", "providers:" + ("" if self.providers else " {}") + "\n"]
        for provider in sorted(self.providers):
            pins = self.providers[provider]
            lines.append(f"  {provider}:" + ("" if pins else " []") + "\n")
            lines += [_entry_text(pin) for pin in pins]
        return "".join(lines)

    def write(self) -> None:
        """Write the file where it belongs. Raises HostError."""
        write_atomic(self.file, self.text())


def path_of(spec_file: Path) -> Path:
    """Where the lock file of a lab is: ``lab.lock.yaml`` beside ``lab.yaml``."""
    return spec_file.with_name(f"{spec_file.name.removesuffix('.yaml').removesuffix('.yml')}.lock.yaml")


def read(path: Path) -> Lock | None:
    """The lock file at ``path``; None where there is none. Raises SpecError with every mistake and its place."""
    if not path.exists():
        return None
    if not path.is_file():
        raise UsageError(f"{path} is no file", hint="A lock file belongs there; move what is in its way.")
    from labctl.spec import source  # YAML's parser takes long to import, and most labs have no lock file

    document = source.read(path)
    checker = _Checker()
    providers = checker.lock(plain(document.root))
    if checker.findings:
        raise SpecError([document.place(finding, document.root) for finding in checker.findings])
    return Lock(path, providers)


def _entry_text(pin: Pin) -> str:
    lines = [f"    - image: {_word(pin.image)}"]
    if pin.packages:
        lines.append(f"      packages: [{', '.join(_word(name) for name in pin.packages)}]")
    lines.append(f"      digest: {json.dumps(pin.digest)}")
    if pin.url:
        lines.append(f"      url: {json.dumps(pin.url)}")
    if pin.sha256:
        lines.append(f"      sha256: {json.dumps(pin.sha256)}")
    if pin.versions:
        lines.append("      versions:")
        lines += [f"        {_word(name)}: {json.dumps(pin.versions[name])}" for name in sorted(pin.versions)]
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    """A name, quoted where YAML would take it for something else."""
    return text if _PLAIN.fullmatch(text) and scalars.resolve(text) == text else json.dumps(text)


@dataclass(slots=True)
class _Checker:
    """Turns plain values into pins and notes what is wrong on the way."""

    findings: list[Finding] = field(default_factory=list)

    def lock(self, value: Any) -> dict[str, tuple[Pin, ...]]:
        top = self._map(value, (), ("version", "providers"), ("version", "providers"))
        if "version" in top and (top["version"] != VERSION or isinstance(top["version"], bool)):
            self._note(("version",), f"{quoted(top['version'])} is not a version of the lock file", str(VERSION))
        providers = top.get("providers", {})
        if not isinstance(providers, dict):
            self._note(("providers",), "this must be a map of providers", "qemu: [{image: …, digest: …}]")
            return {}
        for name in providers:
            if name not in PROVIDERS:
                close = nearest(name, PROVIDERS)
                keys = ("providers", name)
                self._note(keys, f"unknown provider {quoted(name)}", listed(PROVIDERS), close, on_key=True)
        return {name: self._pins(value, ("providers", name)) for name, value in providers.items()}

    def _pins(self, value: Any, keys: Keys) -> tuple[Pin, ...]:
        if not isinstance(value, list):
            self._note(keys, "this must be a list of images", "[{image: …, digest: …}]")
            return ()
        pins = tuple(self._pin(entry, (*keys, index)) for index, entry in enumerate(value))
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for index, pin in enumerate(pins):
            if (pin.image, pin.packages) in seen:
                self._note((*keys, index), f"{pin.title} is there twice")
            seen.add((pin.image, pin.packages))
        return pins

    def _pin(self, value: Any, keys: Keys) -> Pin:
        body = self._map(value, keys, _ENTRY, ("image", "digest"))
        if "url" in body and "sha256" not in body:
            self._note(keys, "url without sha256 pins nothing")
        url = body.get("url", "")
        if "url" in body and not (isinstance(url, str) and _URL.fullmatch(url) and catalogue.is_url(url)):
            self._note((*keys, "url"), f"{quoted(url)} is no place to fetch from", "http://, https:// or file:///")
        return Pin(
            self._text(body, keys, "image", catalogue.NAME, "an image's name"),
            self._digest(body, keys, "digest"),
            self._packages(body, keys),
            str(url),
            self._digest(body, keys, "sha256"),
            self._versions(body, keys),
        )

    def _packages(self, body: Mapping[str, Any], keys: Keys) -> tuple[str, ...]:
        packages = body.get("packages", [])
        if not isinstance(packages, list):
            self._note((*keys, "packages"), "this must be a list of packages", "[nginx-light, curl]")
            return ()
        for index, package in enumerate(packages):
            if not (isinstance(package, str) and catalogue.PACKAGE.fullmatch(package)):
                self._note((*keys, "packages", index), f"{quoted(package)} cannot be a package's name")
        return tuple(sorted({str(package) for package in packages}))

    def _versions(self, body: Mapping[str, Any], keys: Keys) -> dict[str, str]:
        versions = body.get("versions", {})
        if not isinstance(versions, dict):
            self._note((*keys, "versions"), "this must be a map from package to version", 'curl: "7.88.1-10"')
            return {}
        for name, version in versions.items():
            if not catalogue.PACKAGE.fullmatch(name):
                self._note((*keys, "versions", name), f"{quoted(name)} cannot be a package's name", on_key=True)
            if not (isinstance(version, str) and _DPKG_VERSION.fullmatch(version)):
                self._note(
                    (*keys, "versions", name), f"{quoted(version)} is no package's version", "a version in quotes"
                )
        return {name: str(version) for name, version in versions.items()}

    def _digest(self, body: Mapping[str, Any], keys: Keys, key: str) -> str:
        value = body.get(key, "")
        if key in body and not (isinstance(value, str) and catalogue.is_sha256(value)):
            self._note((*keys, key), f"{quoted(value)} is no digest", "64 hexadecimal digits, small letters, in quotes")
        return str(value)

    def _text(self, body: Mapping[str, Any], keys: Keys, key: str, form: re.Pattern[str], allowed: str) -> str:
        value = body.get(key, "")
        if key in body and not (isinstance(value, str) and form.fullmatch(value)):
            self._note((*keys, key), f"{quoted(value)} is not right here", allowed)
        return str(value)

    def _map(self, value: Any, keys: Keys, known: tuple[str, ...], needed: tuple[str, ...]) -> dict[str, Any]:
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
        hint = "" if self.findings else _HINT
        self.findings.append(Finding(keys, message, allowed=allowed, nearest=near, hint=hint, on_key=on_key))
