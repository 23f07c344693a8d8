"""What guests say, read as the untrusted input it is: of a limited size, in one shape, about their own probes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, get_args

from labctl.verify.model import Seen
from labctl.verify.wires import Overheard

MAX_BYTES = 4 << 20  # 20,000 probes of 200 bytes each
MAX_TEXT = 120
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_KIND = re.compile(r"[0-9a-f]{4}")
_SEEN: dict[str, Seen] = {word: word for word in get_args(Seen)}


class BadAnswer(Exception):  # noqa: N818 - it is the guest's answer that is bad, and the text says how
    """A guest's answer cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a guest says about one probe of its own. proof: what it heard from the other end."""

    seen: Seen
    details: str
    milliseconds: int
    proof: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What a guest says about its probes, by id, and about its NICs: the devices that have a carrier."""

    answers: dict[int, Answer]
    linked: frozenset[str]


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of listeners: index to ``open``, ``taken`` or an error. pipes: the guest's paths of the two that its
    resident takes a task from and answers by; none where a shell did it."""

    doors: dict[int, str]
    pipes: tuple[str, ...]


def batch(raw: bytes, ids: Collection[int]) -> Batch:
    """The answer to a ``probe`` task. A guest speaks for its own probes: any other id makes the whole answer bad."""
    document = _document(raw)
    known, answers = frozenset(ids), {}
    for row in _list(document.get("results")):
        match row:
            case [int(number), str(seen), str(details), int(milliseconds), str(proof)] if seen in _SEEN:
                pass
            case _:
                raise BadAnswer("a result has the wrong shape")
        if number not in known or number in answers or isinstance(number, bool):
            raise BadAnswer("it speaks about probes that are not its own")
        answers[number] = Answer(_SEEN[seen], plain(details), max(0, min(milliseconds, 3_600_000)), plain(proof))
    links = document.get("links")
    if not isinstance(links, dict):
        raise BadAnswer("the links have the wrong shape")
    return Batch(answers, frozenset(device for device, state in links.items() if state == "up"))


def opened(raw: bytes, count: int) -> Opened:
    """The answer to a ``listen`` task for ``count`` listeners."""
    document = _document(raw)
    found: dict[int, str] = {}
    for row in _list(document.get("opened")):
        match row:
            case [int(index), str(how)] if 0 <= index < count:
                found[index] = plain(how)
            case _:
                raise BadAnswer("a listener has the wrong shape")
    match document.get("pid"), document.get("pipes"):
        case int(pid), [int(task), int(answer)] if pid > 0 and task >= 0 and answer >= 0:
            return Opened(found, (f"/proc/{pid:d}/fd/{task:d}", f"/proc/{pid:d}/fd/{answer:d}"))
    return Opened(found, ())


def collected(raw: bytes) -> tuple[frozenset[str], Overheard]:
    """The answer to a ``collect`` task: nonces that reached listeners, and what was heard on the wires.

    Only who got a probe or a frame knows its nonce, so there is no more to check about those.
    """
    document = _document(raw)
    nonces = frozenset(nonce for nonce in _list(document.get("arrived")) if isinstance(nonce, str))
    frames, own, sources, claims = set(), set(), set(), set()
    for row in _list(document.get("wires")):
        match row:
            case ["in", str(device), str(nonce)]:
                frames.add((device, nonce))
            case ["out", str(device), str(nonce)]:
                own.add((device, nonce))
            case ["from", str(device), str(mac), str(kind)] if _MAC.fullmatch(mac) and _KIND.fullmatch(kind):
                sources.add((device, mac, int(kind, 16)))
            case ["claim", str(device), str(address), str(mac)] if _MAC.fullmatch(mac):
                claims.add((device, _address(address), mac))
            case _:
                raise BadAnswer("what it heard has the wrong shape")
    return nonces, Overheard(frozenset(frames), frozenset(own), frozenset(sources), frozenset(claims))


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise BadAnswer("it speaks of an address that is none") from error


def plain(text: str) -> str:
    """A guest's text, safe to print: no control characters, no line of any length."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_TEXT])


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadAnswer("a list is missing")
    return value


def _document(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise BadAnswer(f"it is longer than {MAX_BYTES >> 20} MiB")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadAnswer("it is not JSON") from error
    if not isinstance(document, dict):
        raise BadAnswer("it is no JSON object")
    return document
