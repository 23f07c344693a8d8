"""The report as JSON (``schemas/report.schema.json``) and as a matrix in the terminal."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import IO, Any

from labctl.errors import ExitCode
from labctl.verify.model import Control, Evidence, Finding, ProbedFlow, Report, Verdict

REPORT_VERSION = 1
_MARK = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.INCONCLUSIVE: "?"}
_STYLE = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.INCONCLUSIVE: "yellow"}
# Piped output must not be folded to a screen that is not there.
_PIPED_WIDTH = 240
_MOST_TARGETS = 12  # columns that a terminal can show


def exit_code(report: Report) -> ExitCode:
    """0 where everything is PASS; FAIL and INCONCLUSIVE have codes of their own."""
    return {
        Verdict.PASS: ExitCode.OK,
        Verdict.FAIL: ExitCode.FAIL,
        Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    }[report.verdict]


def to_json(report: Report) -> dict[str, Any]:
    """The report as a JSON value, one object per probed flow."""
    return {
        "version": REPORT_VERSION,
        "lab": report.lab,
        "instance": report.instance,
        "provider": report.provider,
        "plan_digest": report.plan_digest,
        "started": _moment(report.started),
        "finished": _moment(report.finished),
        "verdict": report.verdict.value,
        "summary": {verdict.value: count for verdict, count in report.summary.items()},
        "flows": [_flow(flow) for flow in report.flows],
        "host_evidence": [_finding(finding) for finding in report.host_evidence],
    }


def show(report: Report, file: IO[str] | None = None) -> None:
    """Print the matrix, every FAIL and INCONCLUSIVE in words, and the sum; to standard output unless told otherwise."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=_PIPED_WIDTH)
    console.print(_matrix(report))
    for worst in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        for finding in report.host_evidence:
            if finding.verdict is worst:
                console.print(Text(f"{_MARK[worst]} {worst}  {finding.details}", style=_STYLE[worst]), soft_wrap=True)
        for flow in report.flows:
            if flow.verdict is worst:
                console.print(Text(f"{_MARK[worst]} {worst}  {_sentence(flow)}", style=_STYLE[worst]), soft_wrap=True)
                console.print(Text("\n".join(_reasons(flow)), style="dim"), soft_wrap=True)
    for finding in report.host_evidence:
        if finding.verdict is Verdict.PASS:
            console.print(Text(f"note: {finding.details}", style="dim"), soft_wrap=True)
    console.print(Text(_sum(report), style=_STYLE[report.verdict]), soft_wrap=True)


def _matrix(report: Report) -> Any:
    """Sources by targets. Many targets make many narrow columns, so a large lab gets one column of problems instead."""
    from rich.table import Table
    from rich.text import Text

    cells: dict[tuple[str, str], list[ProbedFlow]] = defaultdict(list)
    for flow in report.flows:
        cells[flow.source, flow.target].append(flow)
    sources = list(dict.fromkeys(flow.source for flow in report.flows))
    targets = list(dict.fromkeys([*sources, *(flow.target for flow in report.flows)]))  # one order for both
    if len(targets) > _MOST_TARGETS:
        troubled = {flow.target for flow in report.flows if flow.verdict is not Verdict.PASS}
        targets = [target for target in targets if target in troubled][:_MOST_TARGETS]
    table = Table(
        title=f"{report.lab}/{report.instance}: from ↓ to →",
        caption="flows: + pass as allowed, - shown to be closed, ✗ FAIL, ? INCONCLUSIVE",
    )
    table.add_column("", no_wrap=True)
    for target in [*targets, "all"]:
        table.add_column(Text(target), justify="center", overflow="fold")
    for source in sources:
        everything = [flow for flow in report.flows if flow.source == source]
        row = [_cell(cells.get((source, target), [])) for target in targets]
        table.add_row(Text(source), *row, _cell(everything))
    return table


def _cell(flows: list[ProbedFlow]) -> Any:
    """How many flows got each verdict, those that PASS apart by what was expected of them."""
    from rich.text import Text

    if not flows:
        return Text("·", style="dim")
    passed = [flow for flow in flows if flow.verdict is Verdict.PASS]
    counts = {
        "+": (sum(flow.expected == "pass" for flow in passed), Verdict.PASS),
        "-": (sum(flow.expected == "deny" for flow in passed), Verdict.PASS),
        "✗": (sum(flow.verdict is Verdict.FAIL for flow in flows), Verdict.FAIL),
        "?": (sum(flow.verdict is Verdict.INCONCLUSIVE for flow in flows), Verdict.INCONCLUSIVE),
    }
    return Text(" ").join(Text(f"{mark}{n}", style=_STYLE[verdict]) for mark, (n, verdict) in counts.items() if n)


def _sentence(flow: ProbedFlow) -> str:
    port = f"/{flow.port}" if flow.protocol in ("tcp", "udp") else ""
    trick = f" with {flow.trick}" if flow.trick else ""
    to = f"{flow.target} ({flow.address} {flow.protocol}{port}{trick})"
    return f"{flow.source} ({flow.source_device}) → {to}: expected {flow.expected}, {_seen(flow.evidence)}"


def _seen(evidence: Evidence) -> str:
    words = {"error": "not probed", "no-route": "no route"}.get(evidence.seen, evidence.seen)
    return f"{words} ({evidence.details})" if evidence.details else words


def _reasons(flow: ProbedFlow) -> list[str]:
    """The controls of a flow, and why it is expected, one line each."""
    lines = [
        f"    {c.subject} control {'passed' if c.passed else 'failed'} ({c.by}): {c.details}" for c in flow.control
    ]
    return [*lines, f"    why: {flow.why}"] if flow.why else lines


def _sum(report: Report) -> str:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.summary.items())
    return f"{report.verdict}: {len(report.flows)} flows, {counts}, in {report.finished - report.started:.1f} s"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _flow(flow: ProbedFlow) -> dict[str, Any]:
    return {
        "source": flow.source,
        "source_device": flow.source_device,
        "target": flow.target,
        "target_device": flow.target_device,
        "address": flow.address,
        "family": flow.family,
        "protocol": flow.protocol,
        "port": flow.port,
        "expected": flow.expected,
        "verdict": flow.verdict.value,
        "evidence": _evidence(flow.evidence),
        "control": [_control(control) for control in flow.control],
        "why": flow.why,
        "trick": flow.trick,
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {"seen": evidence.seen, "details": evidence.details, "milliseconds": evidence.milliseconds}


def _control(control: Control) -> dict[str, Any]:
    return {"subject": control.subject, "passed": control.passed, "by": control.by, "details": control.details}


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "machine": finding.machine,
        "details": finding.details,
        "verdict": finding.verdict.value,
    }
