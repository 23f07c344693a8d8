"""The page of ``verify --report`` in a real browser without a network: its scripts run and its cells open."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from labctl.plan.build import build
from labctl.plan.model import LabPlan
from labctl.spec.load import load
from labctl.verify.model import Finding, Verdict
from labctl.verify.reports import changes, page, to_json
from tests.support.browser import visit
from tests.support.reports import reported
from tests.unit.verify.test_report_page import Markup, hostile_page

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

LEAK = ("attacker", "office-1", "tcp", 22)
SAID = "SSH-2.0-<b>OpenSSH</b>_9.2"


@pytest.fixture(scope="module")
def plan(request: pytest.FixtureRequest) -> LabPlan:
    return build(load(request.config.rootpath / "labs/dmz/lab.yaml"), provider="qemu")


@pytest.fixture(scope="module")
def bad(plan: LabPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a lab with a leak, a service that is down and a machine that is dead."""
    extra = Finding("extra-nic", "web", "web has a NIC too many", Verdict.FAIL)
    report = reported(
        plan, open_to={LEAK}, mute={("web", "tcp", 80)}, dead={"office-2": "it is dead"}, says=SAID, findings=(extra,)
    )
    file = tmp_path_factory.mktemp("bad") / "report.html"
    file.write_text(page(to_json(report), plan, changes(to_json(reported(plan)), to_json(report))), encoding="utf-8")
    return file


def test_a_link_to_a_cell_opens_it_with_evidence_controls_and_reasons(bad: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    seen = visit(bad, "#cell=attacker,office-1", home=tmp_path, picture=shot)
    assert seen.console == ()
    assert "attacker → office-1 ✕ 6 flows" in seen.text
    assert f"tcp/22 10.10.10.230 from eth0 to eth0 Expected: deny . Seen: answer ({SAID}) after 4 ms." in seen.text
    assert "Why: no policy rule lets it from outside to lan" in seen.text
    assert "✓ source (peer): attacker reached fw" in seen.text
    assert seen.text.index("✗ FAIL tcp/22 10.10.10.230") < seen.text.index("✓ PASS icmp 10.10.10.230"), "worst first"
    pressed = [tag for tag in re.findall(r"<button[^>]*>", seen.dom) if 'aria-pressed="true"' in tag]
    assert ['data-source="attacker" data-target="office-1"' in tag for tag in pressed] == [True]
    assert shot.read_bytes().startswith(b"\x89PNG")


def test_on_a_narrow_screen_everything_but_the_cells_stands_for_itself(bad: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    seen = visit(bad, home=tmp_path, picture=shot, size="390,844")
    assert seen.console == ()
    assert re.search(r'<div id="detail"[^>]* hidden=""', seen.dom)
    for words in (
        "Isolation broken",
        "web has a NIC too many seen from the host",
        "saw an answer, should be closed: no policy rule lets it from outside to lan",
        "web tcp/80 answers nobody of those who may reach it",
        "office-2 could not be asked: it is dead",
        "✓ PASS → now ✗ FAIL attacker → office-1 tcp/22",
    ):
        assert words in seen.text
    assert shot.stat().st_size > 20_000, "an empty page is smaller"


def test_the_filter_hides_what_passes(bad: Path, tmp_path: Path) -> None:
    seen = visit(bad, "#only=1&cell=attacker,web", home=tmp_path)
    assert "attacker → web ✕ 1 flow; 9 that PASS are hidden" in seen.text
    assert '<body class="fail problems">' in seen.dom
    assert seen.console == ()


WALK = """<script>
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const cell = (s, t) => document.querySelector(`.cell[data-source="${s}"][data-target="${t}"]`);
  const state = () => {
    const box = document.getElementById("detail");
    return box.hidden ? "closed" : box.querySelector(".bar").textContent + box.querySelector("p").textContent;
  };
  const turn = (hash) => new Promise((done) => {
    addEventListener("hashchange", () => done(state()), {once: true});
    location.hash = hash;
  });
  (async () => {
    const log = [];
    cell("attacker", "fw").focus();
    for (const key of ["ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown"]) press(key);
    document.activeElement.click();
    log.push(state(), location.hash);
    press("Escape");
    log.push(state());
    document.querySelector(".link").click();
    log.push(state());
    document.querySelector(".rowhead").click();
    log.push(state());
    document.getElementById("only").click();
    log.push(state(), location.hash);
    const odd = ["#cell=nobody,web", "#cell=%E0%A4%A,x", "#cell=<b>,web", "#only=1&cell"];
    for (const hash of [...odd, "#cell=fw,host"]) log.push(await turn(hash));
    document.title = JSON.stringify(log);
  })();
</script></body>"""


def test_clicks_keys_and_links_choose_cells(bad: Path, tmp_path: Path) -> None:
    """By a script of the test's own in a copy of the page without its policy, which lets nothing else in."""
    text = bad.read_text(encoding="utf-8")
    copy = tmp_path / "copy.html"
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    copy.write_text(free.replace("</body>", WALK), encoding="utf-8")
    seen = visit(copy, home=tmp_path)
    assert seen.console == ()
    title, *_of_the_drawing = re.findall(r"<title>(.*?)</title>", seen.dom)
    assert json.loads(html.unescape(title)) == [
        "office-2 → web✕7 flows",  # right to web, down to fw's, over web's own empty one to office-1's and office-2's
        "#cell=office-2,web",
        "closed",
        "attacker → office-1✕6 flows",
        "attacker → everybody✕43 flows",
        "attacker → everybody✕6 flows; 37 that PASS are hidden",
        "#only=1&cell=attacker,*",
        *["closed"] * 4,
        "fw → host✕12 flows",
    ]


def test_the_page_s_policy_stops_a_script_that_is_not_its_own(bad: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.html"
    text = bad.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", '<script>document.title = "owned"</script></body>'), encoding="utf-8")
    seen = visit(copy, home=tmp_path)
    assert "<title>owned</title>" not in seen.dom
    assert any("Content Security Policy" in line for line in seen.console), "and so a violation would be noticed here"


def test_hostile_texts_are_text_in_a_browser_too(plan: LabPlan, tmp_path: Path) -> None:
    file = tmp_path / "hostile.html"
    file.write_text(hostile_page(plan), encoding="utf-8")
    (source, target), *_ = re.findall(
        r'class="cell[^"]*" data-source="([^"]*)" data-target="([^"]*)"', file.read_text()
    )
    named = ",".join(quote(html.unescape(name), safe="") for name in (source, target))
    seen = visit(file, f"#cell={named}", home=tmp_path)
    assert seen.console == ()
    assert "Why: </script><script>alert(1)</script><!--<img src=x onerror=alert(1)>" in seen.text
    markup = Markup(seen.dom)
    assert len(markup.all("script")) == 2
    assert not markup.all("img")


def test_the_report_of_a_lab_that_really_ran(netlab: Any, tmp_path: Path) -> None:
    """Guests in namespaces, a planted hole in the firewall, a guest that does not answer."""
    netlab.rules("fw", "insert rule inet labctl forward ip saddr 203.0.113.6 ip daddr 10.10.10.7 tcp dport 4444 accept")
    netlab.dead.add("web")
    report = netlab.verify()
    assert report.verdict is Verdict.FAIL
    file = tmp_path / "report.html"
    file.write_text(page(to_json(report), netlab.plan), encoding="utf-8")
    seen = visit(file, "#cell=attacker,office", home=tmp_path)
    assert seen.console == ()
    assert "Isolation broken 1 flow passes that must not" in seen.text
    assert "web could not be asked: web does not answer" in seen.text
    assert "✗ FAIL tcp/4444 10.10.10.7" in seen.text
