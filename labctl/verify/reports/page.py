"""The report as one page of HTML that needs nothing else: no network, no other file, no server.

Names, addresses and what guests answered are text and stay text: the template escapes everything, the flows are
embedded as JSON without a character that HTML knows, the script makes text nodes only, and the page's policy lets
nothing run but this style and this script, named by their digests.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labctl.plan.model import LabPlan
from labctl.plan.picture import BAR_HEIGHT, BOX_HEIGHT, BOX_WIDTH, lay_out
from labctl.plan.reach import blasts
from labctl.verify.reports.causes import causes
from labctl.verify.reports.changes import Changes
from labctl.verify.reports.document import Document, FlowEntry, VerdictWord, service

if TYPE_CHECKING:
    import jinja2

_FOLDER = Path(__file__).parent
_Pair = tuple[str, str]  # source and target
_WORST: tuple[VerdictWord, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
_POLICY = (
    "default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@dataclass(frozen=True, slots=True)
class Cell:
    """The flows from one machine to one target, counted. opened and closed: flows that PASS, by what they show.
    apart: closed ones by the management path, which is closed everywhere and says nothing of the lab's own networks."""

    source: str
    target: str
    opened: int
    closed: int
    apart: int
    failed: int
    undecided: int

    @property
    def verdict(self) -> VerdictWord | None:
        """The worst of all, None where nothing was probed."""
        if self.failed:
            return "FAIL"
        return "INCONCLUSIVE" if self.undecided else "PASS" if self.opened or self.closed or self.apart else None

    @property
    def look(self) -> str:
        """What the cell looks like: the class of its style."""
        if self.verdict != "PASS":
            return {"FAIL": "fail", "INCONCLUSIVE": "undecided"}.get(self.verdict or "", "empty")
        return "part" if self.opened and self.closed else "open" if self.opened else "closed"

    @property
    def words(self) -> str:
        """The cell for those who hear it."""
        counts = {
            "FAIL": self.failed,
            "INCONCLUSIVE": self.undecided,
            "open as allowed": self.opened,
            "shown to be closed": self.closed + self.apart,
        }
        return f"{self.source} to {self.target}: " + ", ".join(f"{n} {word}" for word, n in counts.items() if n)


def page(document: Document, plan: LabPlan, since: Changes | None = None) -> str:
    """The page's text. plan: what the report is about, for its picture. since: what has changed, where known."""
    clean: Document = _printable(document)
    style, script = _file("page.css"), _file("page.js")
    sources = list(dict.fromkeys(flow["source"] for flow in clean["flows"]))
    targets = list(dict.fromkeys([*sources, *(flow["target"] for flow in clean["flows"])]))
    cells = _cells(clean["flows"], plan.management.device)
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            policy=_POLICY.format(style=_digest(style), script=_digest(script)),
            style=style,
            script=script,
            report=clean,
            data={"flows": clean["flows"]},
            headline=_headline(clean),
            sentence=_sentence(clean),
            seconds=_seconds(clean),
            sources=sources,
            targets=targets,
            cells=cells,
            rows={name: _worst([cell for cell in cells.values() if cell.source == name]) for name in sources},
            columns={name: _worst([cell for cell in cells.values() if cell.target == name]) for name in targets},
            causes=[(cause, _examples(cause.flows)) for cause in causes(clean["flows"])],
            findings=sorted(clean["host_evidence"], key=lambda finding: _WORST.index(finding["verdict"])),
            since=since,
            turned=_turned(since) if since is not None else {},
            plan=plan,
            picture=lay_out(plan),
            sizes={"box": (BOX_WIDTH, BOX_HEIGHT), "bar": BAR_HEIGHT},
            troubled=_troubled(clean["flows"]),
            blasts=blasts(plan),
        )
    )
    return str(text)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    made.filters["printable"] = _printable
    return made


@cache
def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _printable(value: Any) -> Any:
    """The same value; in its texts, what would not show, or would turn the text around it, is a question mark."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "\ufffd" for c in value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value


def _cells(flows: Sequence[FlowEntry], management: str) -> dict[_Pair, Cell]:
    groups: dict[_Pair, list[FlowEntry]] = defaultdict(list)
    for flow in flows:
        groups[flow["source"], flow["target"]].append(flow)
    found = {}
    for (source, target), members in groups.items():
        passed = [(flow["expected"], flow["source_device"] == management) for flow in members if _passes(flow)]
        words = [flow["verdict"] for flow in members]
        found[source, target] = Cell(
            source,
            target,
            sum(expected == "pass" for expected, _ in passed),
            passed.count(("deny", False)),
            passed.count(("deny", True)),
            words.count("FAIL"),
            words.count("INCONCLUSIVE"),
        )
    return found


def _passes(flow: FlowEntry) -> bool:
    return flow["verdict"] == "PASS"


def _worst(cells: Sequence[Cell]) -> VerdictWord:
    return min((cell.verdict for cell in cells if cell.verdict), key=_WORST.index, default="PASS")


def _troubled(flows: Sequence[FlowEntry]) -> dict[str, VerdictWord]:
    """Machines to mark in the picture: the ends of leaks, who does not answer, and who says nothing of any use."""
    found: dict[str, VerdictWord] = {}
    for source in {flow["source"] for flow in flows}:
        if all(flow["verdict"] == "INCONCLUSIVE" for flow in flows if flow["source"] == source):
            found[source] = "INCONCLUSIVE"
    for flow in flows:
        if flow["verdict"] == "FAIL":
            found[flow["target"]] = "FAIL"
            if flow["expected"] == "deny":
                found[flow["source"]] = "FAIL"
    return found


def _together(keys: Iterable[tuple[_Pair, str]]) -> dict[_Pair, list[str]]:
    """What belongs to one pair of machines, each thing once."""
    found: dict[_Pair, dict[str, None]] = defaultdict(dict)
    for pair, text in keys:
        found[pair][text] = None
    return {pair: list(texts) for pair, texts in found.items()}


def _examples(flows: Sequence[FlowEntry]) -> dict[_Pair, list[str]]:
    """Source and target to the ports that are concerned."""
    return _together(((flow["source"], flow["target"]), service(flow)) for flow in flows)


def _turned(since: Changes) -> dict[tuple[str, str], dict[_Pair, list[str]]]:
    """The verdict before and now, the most serious first, to source and target to the ports that are concerned."""
    found: dict[tuple[str, str], list[tuple[_Pair, str]]] = defaultdict(list)
    for one in sorted(since.turned, key=lambda one: (not one.worse, _WORST.index(one.now))):
        key = one.key
        port = f"{key.protocol}/{key.port}" if key.port else key.protocol
        found[one.before, one.now].append(((key.source, key.target), port))
    return {verdicts: _together(keys) for verdicts, keys in found.items()}


def _headline(document: Document) -> str:
    if document["verdict"] == "PASS":
        return "Isolation proven"
    if document["verdict"] == "INCONCLUSIVE":
        return "Not proven"
    return "Isolation broken" if _leaks(document) else "Not as written"


def _leaks(document: Document) -> int:
    """Flows that pass and must not, and differences that the host's side shows."""
    failed = [flow for flow in document["flows"] if flow["verdict"] == "FAIL"]
    return sum(flow["expected"] == "deny" for flow in failed) + sum(
        finding["verdict"] == "FAIL" for finding in document["host_evidence"]
    )


def _sentence(document: Document) -> str:
    """The verdict in a sentence or two."""
    count, flows = document["summary"], document["flows"]
    if not flows:
        return "Nothing was probed, so nothing is shown."
    if document["verdict"] == "PASS":
        return f"All {len(flows)} flows are as the lab file says, and every denial could have failed."
    leaks = sum(flow["verdict"] == "FAIL" and flow["expected"] == "deny" for flow in flows)
    parts = [
        _counted(leaks, "flow passes that must not", "flows pass that must not"),
        _counted(count["FAIL"] - leaks, "allowed flow does not pass", "allowed flows do not pass"),
        _counted(
            sum(finding["verdict"] == "FAIL" for finding in document["host_evidence"]),
            "difference from the plan on the host's side",
            "differences from the plan on the host's side",
        ),
        _counted(count["INCONCLUSIVE"], "flow could not be decided", "flows could not be decided"),
    ]
    return "; ".join(part for part in parts if part) + f". Of {len(flows)} flows, {count['PASS']} are as written."


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}" if count else ""


def _seconds(document: Document) -> float:
    return (datetime.fromisoformat(document["finished"]) - datetime.fromisoformat(document["started"])).total_seconds()
