"""Downloads that count only when their digest is right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labctl.errors import ImageError
from labctl.events import Event, Listener
from labctl.images import catalogue

_CHUNK = 1 << 20
_LARGEST = 64 << 30
_SECONDS = 60.0  # without a byte


def fetch(url: str, sha256: str, target: Path, *, name: str, listener: Listener, largest: int = _LARGEST) -> None:
    """Download ``url`` (http, https or file) to ``target``. TLS certificates are checked; redirects are followed.

    largest: bytes. Raises ImageError where it cannot be had, is too large or has another digest; ``target`` is then
    gone.
    """
    if not catalogue.is_url(url):
        raise ImageError(f"{url} is no place to fetch an image from", hint="http://, https:// and file:/// URLs work.")
    if not catalogue.is_sha256(sha256):
        raise ImageError(f"{sha256!r} is no SHA-256 digest", hint="It has 64 hexadecimal digits in small letters.")
    try:
        found = _download(url, target, name, listener, largest)
        if found != sha256:
            raise ImageError(
                f"what {url} holds is not what was asked for",
                details=f"expected sha256 {sha256}\nfound    sha256 {found}",
                hint="Nothing of it is used. Ask whoever gave you the digest; do not simply replace it.",
            )
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _download(url: str, target: Path, name: str, listener: Listener, largest: int) -> str:
    """The digest of what was written."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for chunk, message in _chunks(url, largest):
            digest.update(chunk)
            file.write(chunk)
            listener(Event("progress", "image", name, message))
    return digest.hexdigest()


def _chunks(url: str, largest: int) -> Iterator[tuple[bytes, str]]:
    """Pieces of the content, each with how far it has come."""
    from http.client import HTTPException

    got = 0
    try:
        with _open(url) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(_CHUNK):
                got += len(chunk)
                if max(got, total) > largest:
                    raise ImageError(f"{url} is larger than {largest >> 20} MiB", hint="Nothing of it was kept.")
                yield chunk, f"{got >> 20} of {total >> 20} MiB" if total else f"{got >> 20} MiB"
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(f"{url} cannot be fetched", details=str(error)) from error
    if total and got < total:
        raise ImageError(f"{url} broke off after {got} of {total} bytes", hint="Repeat the command.")


def _open(url: str) -> Any:
    """An answer to read from. The opener speaks no other protocols, not even where a redirect asks for one."""
    import urllib.request as client

    opener = client.OpenerDirector()
    for handler in (
        client.ProxyHandler(),
        client.UnknownHandler(),
        client.HTTPDefaultErrorHandler(),
        client.HTTPRedirectHandler(),
        client.HTTPErrorProcessor(),
        client.HTTPHandler(),
        client.HTTPSHandler(),
        client.FileHandler(),
    ):
        opener.add_handler(handler)
    return opener.open(url, timeout=_SECONDS)
