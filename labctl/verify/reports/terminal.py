"""The report in the terminal: a matrix, what is wrong by its causes, and the sum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import IO, Any

from labctl.verify import checks
from labctl.verify.model import Report, Verdict
from labctl.verify.reports.causes import Cause, causes
from labctl.verify.reports.changes import Changes
from labctl.verify.reports.document import Document, EvidenceEntry, FlowEntry, service, to_json

_MARK = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?"}
_STYLE = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow"}
# Piped output must not be folded to a screen that is not there.
_PIPED_WIDTH = 240
_MOST_TARGETS = 12  # columns that a terminal can show
_ALONE = 3  # flows with one cause that are told one by one; of more, this many are examples

_Line = tuple[str, str]  # text and style


def show(report: Report, file: IO[str] | None = None, *, verbose: bool = False, since: Changes | None = None) -> None:
    """Print the matrix, every FAIL and INCONCLUSIVE in words, and the sum; to standard output unless told otherwise.

    verbose: each flow on its own, where otherwise those with one cause share a line. since: what has changed.
    """
    from rich.console import Console
    from rich.text import Text

    document = to_json(report)
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=_PIPED_WIDTH)
    if report.flows:
        console.print(_matrix(document))
    for text, style in (
        *_problems(document, verbose),
        *_checks(report),
        *_since(since),
        (_sum(report), _STYLE[report.verdict]),
    ):
        console.print(Text(text, style=style), soft_wrap=True)


def _problems(document: Document, verbose: bool) -> Iterator[_Line]:
    found = causes(document["flows"])
    for worst in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        for finding in document["host_evidence"]:
            if finding["verdict"] == worst:
                yield f"{_MARK[worst]} {worst}  {finding['details']}", _STYLE[worst]
        for cause in found:
            if cause.verdict == worst:
                yield from _every(cause.flows) if verbose or len(cause.flows) <= _ALONE else _together(cause)
    for finding in document["host_evidence"]:
        if finding["verdict"] == "PASS":
            yield f"note: {finding['details']}", "dim"


def _checks(report: Report) -> Iterator[_Line]:
    for verdict, sentence, details in checks.told(report.checks):
        yield f"{_MARK[verdict]} {verdict}  {sentence}", _STYLE[verdict]
        if details:
            yield details, "dim"


def _every(flows: Sequence[FlowEntry]) -> Iterator[_Line]:
    for flow in flows:
        yield f"{_MARK[flow['verdict']]} {flow['verdict']}  {_sentence(flow)}", _STYLE[flow["verdict"]]
        if reasons := _reasons(flow):
            yield "\n".join(reasons), "dim"


def _together(cause: Cause) -> Iterator[_Line]:
    yield f"{_MARK[cause.verdict]} {cause.verdict}  {len(cause.flows)} flows: {cause.reason}", _STYLE[cause.verdict]
    for flow in cause.flows[:_ALONE]:
        yield f"    {_ends(flow)}: expected {flow['expected']}", "dim"
    yield f"    and {len(cause.flows) - _ALONE} more; --verbose shows all", "dim"


def _since(since: Changes | None) -> Iterator[_Line]:
    """What has changed since the last report, in a few lines."""
    if since is None or since.empty:
        return
    worse = [turned for turned in since.turned if turned.worse]
    parts = [
        f"{len(worse)} verdicts worse" if worse else "",
        f"{len(since.turned) - len(worse)} better" if len(since.turned) > len(worse) else "",
        f"{len(since.new)} flows new" if since.new else "",
        f"{len(since.gone)} gone" if since.gone else "",
    ]
    yield f"since {since.finished} ({since.verdict}): {', '.join(part for part in parts if part)}", "dim"
    for turned in worse[:_ALONE]:
        yield f"    {turned.key.source} → {turned.key.door}: {turned.before} → {turned.now}", "dim"


def _matrix(document: Document) -> Any:
    """Sources by targets. Many targets make many narrow columns, so a large lab gets one column of problems instead."""
    from rich.table import Table
    from rich.text import Text

    flows = document["flows"]
    cells: dict[tuple[str, str], list[FlowEntry]] = defaultdict(list)
    for flow in flows:
        cells[flow["source"], flow["target"]].append(flow)
    sources = list(dict.fromkeys(flow["source"] for flow in flows))
    targets = list(dict.fromkeys([*sources, *(flow["target"] for flow in flows)]))  # one order for both
    if len(targets) > _MOST_TARGETS:
        troubled = {flow["target"] for flow in flows if flow["verdict"] != "PASS"}
        targets = [target for target in targets if target in troubled][:_MOST_TARGETS]
    table = Table(
        title=f"{document['lab']}/{document['instance']}: from ↓ to →",
        caption="flows: + pass as allowed, - shown to be closed, ✗ FAIL, ? INCONCLUSIVE",
    )
    table.add_column("", no_wrap=True)
    for target in [*targets, "all"]:
        table.add_column(Text(target), justify="center", overflow="fold")
    for source in sources:
        everything = [flow for flow in flows if flow["source"] == source]
        row = [_cell(cells.get((source, target), [])) for target in targets]
        table.add_row(Text(source), *row, _cell(everything))
    return table


def _cell(flows: list[FlowEntry]) -> Any:
    """How many flows got each verdict, those that PASS apart by what was expected of them."""
    from rich.text import Text

    if not flows:
        return Text("·", style="dim")
    passed = [flow for flow in flows if flow["verdict"] == "PASS"]
    counts = {
        "+": (sum(flow["expected"] == "pass" for flow in passed), "PASS"),
        "-": (sum(flow["expected"] == "deny" for flow in passed), "PASS"),
        "✗": (sum(flow["verdict"] == "FAIL" for flow in flows), "FAIL"),
        "?": (sum(flow["verdict"] == "INCONCLUSIVE" for flow in flows), "INCONCLUSIVE"),
    }
    return Text(" ").join(Text(f"{mark}{n}", style=_STYLE[verdict]) for mark, (n, verdict) in counts.items() if n)


def _sentence(flow: FlowEntry) -> str:
    return f"{_ends(flow)}: expected {flow['expected']}, {_seen(flow['evidence'])}"


def _ends(flow: FlowEntry) -> str:
    trick = f" with {flow['trick']}" if flow["trick"] else ""
    to = f"{flow['target']} ({flow['address']} {service(flow)}{trick})"
    return f"{flow['source']} ({flow['source_device']}) → {to}"


def _seen(evidence: EvidenceEntry) -> str:
    words = {"error": "not probed", "no-route": "no route"}.get(evidence["seen"], evidence["seen"])
    return f"{words} ({evidence['details']})" if evidence["details"] else words


def _reasons(flow: FlowEntry) -> list[str]:
    """The controls of a flow, and why it is expected, one line each."""
    lines = [
        f"    {c['subject']} control {'passed' if c['passed'] else 'failed'} ({c['by']}): {c['details']}"
        for c in flow["control"]
    ]
    return [*lines, f"    why: {flow['why']}"] if flow["why"] else lines


def _sum(report: Report) -> str:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.summary.items())
    flows = [f"{len(report.flows)} flows, {counts}"] if report.flows or not report.checks else []
    tried = "; ".join([*flows, *checks.counted(report.checks)])
    return f"{report.verdict}: {tried}, in {report.finished - report.started:.1f} s"
