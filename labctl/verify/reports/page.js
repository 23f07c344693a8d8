"use strict";
// Shows the flows of a cell. Makes text nodes only: what guests answered must never become markup.
(() => {
  const flows = JSON.parse(document.getElementById("data").textContent).flows;
  const detail = document.getElementById("detail");
  const only = document.getElementById("only");
  const table = document.getElementById("cells");
  const MARK = { PASS: "✓", FAIL: "✗", INCONCLUSIVE: "?" };
  const SEEN = { error: "could not be probed", "no-route": "no route", answered: "answer", refused: "refusal" };
  const RANK = ["FAIL", "INCONCLUSIVE", "PASS"];
  const MOST = 150; // flows shown at once
  let chosen = null;

  const make = (tag, look, ...children) => {
    const node = document.createElement(tag);
    if (look) node.className = look;
    node.append(...children);
    return node;
  };

  const badge = (verdict) => {
    const mark = make("span", "", MARK[verdict]);
    mark.setAttribute("aria-hidden", "true");
    return make("span", `badge ${verdict.toLowerCase()}`, mark, ` ${verdict}`);
  };

  const control = (one) =>
    make("li", one.passed ? "held" : "broke",
      `${one.passed ? "✓" : "✗"} ${one.subject} (${one.by}): ${one.details}`);

  const shown = (flow, named) => {
    const port = ["tcp", "udp"].includes(flow.protocol) ? `${flow.protocol}/${flow.port}` : flow.protocol;
    const trick = flow.trick ? ` with ${flow.trick}` : "";
    const seen = SEEN[flow.evidence.seen] || flow.evidence.seen;
    const time = flow.evidence.milliseconds === null ? "" : ` after ${flow.evidence.milliseconds} ms`;
    const said = flow.evidence.details ? ` (${flow.evidence.details})` : "";
    const item = make("li", `flow ${flow.verdict.toLowerCase()}`,
      make("p", "line", badge(flow.verdict), " ",
        ...(named ? [make("b", "", `→ ${flow.target} `)] : []),
        make("span", "port", port), " ", make("span", "address", flow.address),
        make("span", "quiet", ` from ${flow.source_device}${flow.target_device ? ` to ${flow.target_device}` : ""}${trick}`)),
      make("p", "seen", "Expected: ", make("b", "", flow.expected), ". Seen: ", make("b", "", seen), `${said}${time}.`));
    if (flow.why) item.append(make("p", "quiet", `Why: ${flow.why}`));
    if (flow.control.length) item.append(make("ul", "controls", ...flow.control.map(control)));
    return item;
  };

  const list = (found, named) => {
    const all = make("ul", "flows", ...found.slice(0, MOST).map((flow) => shown(flow, named)));
    if (found.length <= MOST) return [all];
    const more = make("button", "more", `Show ${found.length - MOST} more`);
    more.type = "button";
    more.addEventListener("click", () => {
      all.append(...found.slice(MOST).map((flow) => shown(flow, named)));
      more.remove();
    });
    return [all, more];
  };

  const render = () => {
    document.body.classList.toggle("problems", only.checked);
    for (const button of table.querySelectorAll("button")) {
      const is = chosen && button.dataset.source === chosen[0] && button.dataset.target === chosen[1];
      button.setAttribute("aria-pressed", String(Boolean(is)));
    }
    detail.hidden = !chosen;
    if (!chosen) return;
    const [source, target] = chosen;
    const all = flows.filter((flow) => flow.source === source && (target === "*" || flow.target === target));
    const found = all.filter((flow) => !only.checked || flow.verdict !== "PASS");
    found.sort((a, b) => RANK.indexOf(a.verdict) - RANK.indexOf(b.verdict));
    const close = make("button", "close", "✕");
    close.type = "button";
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", () => choose(null));
    const hidden = all.length - found.length;
    detail.replaceChildren(
      make("div", "bar", make("h3", "", `${source} → ${target === "*" ? "everybody" : target}`), close),
      make("p", "quiet", `${found.length} flow${found.length === 1 ? "" : "s"}`
        + (hidden ? `; ${hidden} that PASS ${hidden === 1 ? "is" : "are"} hidden` : "")),
      ...list(found, target === "*"));
  };

  const choose = (cell, move) => {
    chosen = cell;
    const parts = [];
    if (only.checked) parts.push("only=1");
    if (cell) parts.push(`cell=${cell.map(encodeURIComponent).join(",")}`);
    history.replaceState(null, "", `#${parts.join("&")}`);
    render();
    if (cell && move) {
      detail.scrollIntoView({ block: "nearest" });
      detail.focus({ preventScroll: true });
    }
  };

  // #only=1&cell=attacker,web opens that cell, so that a link can point at it.
  const restore = () => {
    const wanted = new Map(location.hash.slice(1).split("&").map((part) => {
      const at = part.indexOf("=");
      return [part.slice(0, at), part.slice(at + 1)];
    }));
    only.checked = wanted.get("only") === "1" && !only.disabled;
    const names = (wanted.get("cell") || "").split(",");
    try {
      chosen = names.length === 2 ? names.map(decodeURIComponent) : null;
    } catch (error) {
      chosen = null; // no link of ours
    }
    if (chosen && !flows.some((flow) => flow.source === chosen[0])) chosen = null;
    render();
    if (chosen) detail.scrollIntoView({ block: "nearest" });
  };

  const STEP = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const walk = (event) => {
    const step = STEP[event.key];
    const cell = event.target.closest("td, th");
    if (!step || !cell) return;
    event.preventDefault();
    const rows = [...table.querySelectorAll("tbody tr")];
    let row = rows.indexOf(cell.parentElement) + step[0];
    let column = cell.cellIndex + step[1];
    for (; rows[row] && rows[row].cells[column]; row += step[0], column += step[1]) {
      const button = rows[row].cells[column].querySelector("button");
      if (button && button.getClientRects().length) return button.focus();
    }
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-source]");
    if (button) choose([button.dataset.source, button.dataset.target], true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen) choose(null);
  });
  table.addEventListener("keydown", walk);
  only.addEventListener("change", () => choose(chosen));
  window.addEventListener("hashchange", restore);
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details")) one.open = true;
  });
  restore();
})();
