"""A real browser that reaches nothing: Chromium without a window, in a network namespace without any device up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

_SECONDS = 150  # a cold Chromium on a busy host
_MISSING = "Chromium is missing: run `make setup`, or install the Debian package `chromium`"


@dataclass(frozen=True)
class Visit:
    """What became of a page. dom: its markup after its scripts. console: what was written there, violations too."""

    dom: str
    console: tuple[str, ...]

    @property
    def text(self) -> str:
        """What a reader sees: the text outside style, script and hidden parts, with single spaces."""
        seen = _Text()
        seen.feed(self.dom)
        return " ".join(" ".join(seen.parts).split())


def visit(page: Path, fragment: str = "", *, home: Path, picture: Path | None = None, size: str = "1280,2000") -> Visit:
    """Open a page from a file. home: a folder for the browser's own files. picture: where to put a screenshot."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail(_MISSING)
    if os.geteuid() != 0:
        pytest.fail("a network namespace for the browser needs root: run these tests as root")
    argv = [
        "unshare", "--net", program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom",
        f"--user-data-dir={home / 'profile'}", f"--window-size={size}",
        *([f"--screenshot={picture}", "--hide-scrollbars"] if picture else []),
        f"{page.as_uri()}{fragment}",
    ]  # fmt: skip
    done = subprocess.run(
        argv, capture_output=True, timeout=_SECONDS, check=False, env={**os.environ, "HOME": str(home)}
    )
    errors = done.stderr.decode(errors="replace")
    assert done.returncode == 0, errors[-3000:]
    # on a busy computer the browser's own pages complain, too
    console = [line for line in re.findall(r":CONSOLE[:(].*", errors) if "source: chrome://" not in line]
    return Visit(done.stdout.decode(), tuple(console))


class _Text(HTMLParser):
    _VOID = frozenset({"meta", "input", "br", "hr", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self._VOID:
            hidden = tag in ("style", "script", "title", "noscript") or "hidden" in dict(attrs)
            self._open.append((tag, hidden or (bool(self._open) and self._open[-1][1])))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not (self._open and self._open[-1][1]):
            self.parts.append(data)
