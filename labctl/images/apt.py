"""Where this host gets distribution packages from: read from its own apt configuration, never guessed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl.errors import HostError
from labctl.host.folders import state_root
from labctl.host.runner import Runner

HOST_APT = Path("/etc/apt")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_OPTIONS = re.compile(r"\[([^\]]*)\]")
_ALIASES = ("stable", "oldstable", "oldoldstable", "testing")
# What of the host's apt settings decides whether its mirror can be reached and its age is accepted.
_SETTINGS = re.compile(
    r'(Acquire::(?:(?:http|https)::[A-Za-z0-9:._-]+|Check-Valid-Until|Check-Date|Retries) "[^"\n]*");'
)


@dataclass(frozen=True, slots=True)
class AptSource:
    """One suite of one mirror. signed_by: a keyring's path, or ``""``."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def line(self) -> str:
        """The source as one line of a ``sources.list``."""
        keyring = self.signed_by or str(KEYRING)
        return f"deb [signed-by={keyring}] {self.uri} {self.suite} {' '.join(self.components)}"


def host_lines(release: str) -> tuple[str, ...]:
    """The lines of a ``sources.list`` for a Debian release, on the mirrors that this host uses itself.

    labctl's state folder may hold an ``apt`` folder of the same form; it goes first. Raises HostError where neither
    names a Debian mirror.
    """
    own = state_root() / "apt"
    for folder in (own, HOST_APT):
        found = for_release(read_folder(folder), release, _codename())
        if found:
            return tuple(source.line() for source in found)
    raise HostError(
        f"this host's apt configuration has no mirror of Debian {release}, from which images are built",
        hint=f"Name one in {own / 'sources.list'} (a line such as 'deb URL {release} main'), or use ready-made disks: "
        "labctl image pull, labctl image import.",
    )


def host_settings(runner: Runner) -> tuple[str, ...]:
    """Proxy, TLS and date settings of the host's apt, each as an option for another apt."""
    dump = runner.run(["apt-config", "dump"], changes=False)
    return tuple(match.group(1) for match in _SETTINGS.finditer(dump.text))


def read_folder(folder: Path) -> tuple[AptSource, ...]:
    """Every enabled source of binary packages under an ``/etc/apt``-like folder; unreadable files are left out."""
    parts = folder / "sources.list.d"
    files = [folder / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    found: list[AptSource] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found += parse_deb822(text) if file.suffix == ".sources" else parse_list(text)
    return tuple(found)


def parse_list(text: str) -> Iterator[AptSource]:
    """The sources of a one-line-style file (sources.list(5))."""
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        options: dict[str, str] = {}
        if bracket := _OPTIONS.search(line):
            options = dict(option.split("=", 1) for option in bracket.group(1).split() if "=" in option)
            line = line[: bracket.start()] + line[bracket.end() :]
        words = line.split()
        if len(words) >= 4 and words[0] == "deb":
            yield AptSource(words[1], words[2], tuple(words[3:]), options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[AptSource]:
    """The sources of a deb822-style file."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        # A key block instead of a path cannot be passed on in one line; the distribution's own keyring stands in.
        signed_by = fields.get("signed-by", "")
        signed_by = signed_by if signed_by.startswith("/") else ""
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield AptSource(uri, suite, tuple(fields.get("components", "").split()), signed_by)


def for_release(sources: Iterable[AptSource], release: str, codename: str) -> tuple[AptSource, ...]:
    """The sources that serve Debian ``release``, where the host itself runs ``codename``.

    Other vendors' repositories are left out: what they sign with their own key, and, where at least one source has a
    path that says ``debian``, what has not.
    """
    found: list[AptSource] = []
    for source in sources:
        stem, separator, rest = source.suite.partition("-")
        known = stem in (release, codename) or (stem in _ALIASES and _is_debian(source))
        wanted = known and (not separator or rest in ("updates", "security"))
        ours = not source.signed_by or Path(source.signed_by).name.startswith("debian-archive-")
        if wanted and ours and "main" in source.components and _can_pass(source):
            found.append(AptSource(source.uri, release + separator + rest, source.components, source.signed_by))
    debian = [source for source in found if _is_debian(source)]
    return tuple(dict.fromkeys(debian or found))


def _is_debian(source: AptSource) -> bool:
    return re.search(r"/debian(-security)?(/|$)", source.uri) is not None


def _can_pass(source: AptSource) -> bool:
    """Whether the source can be one line again, word for word, and is reached over the network."""
    words = (source.uri, *source.components, *filter(None, [source.signed_by]))
    return source.uri.startswith(("http://", "https://")) and all(shlex.quote(word) == word for word in words)


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += " " + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _codename() -> str:
    """The host's release if it runs Debian, else ``""``."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""
    facts = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return facts.get("VERSION_CODENAME", "").strip('"') if facts.get("ID", "").strip('"') == "debian" else ""
