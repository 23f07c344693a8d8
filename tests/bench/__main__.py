"""``make bench``: what labctl costs, side by side with the floor beneath it and a peer, in one run.

The floor of the command line is a Python that does nothing; that of a start is QEMU booting the same image by itself,
or loading a state that it saved itself, until its guest agent answers. Ratios are of runs in turn, so that they hold
where the machine's speed drifts; figures are medians.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench import peer
from tests.bench.figures import machine
from tests.bench.plot import svg
from tests.bench.sections import Bench, home

PARTS = ("command-line", "start", "scale", "verify", "checkpoint", "skew", "class", "peer")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print a table, write JSON and a picture."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each slow figure (3)")
    parser.add_argument("--most", type=int, default=30, help="machines in the largest lab: 3, 8, 30 or 90 (30)")
    parser.add_argument("--students", type=int, default=8, help="students of the class, three machines each (8)")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--json", type=Path, default=RESULTS / "bench.json", help="write the figures to this file")
    parser.add_argument("--svg", type=Path, default=RESULTS / "bench.svg", help="draw the figures into this file")
    options = parser.parse_args()
    failed = []
    with home() as folder:
        bench = Bench(folder, options.runs, options.most, options.students)
        for part in options.only or PARTS:
            try:
                if part == "peer":
                    peer.measure(bench.figures, folder, options.runs)
                else:
                    bench.parts[part]()
            except SystemExit as error:  # of a program that failed: the other parts are worth their time all the same
                failed.append(f"{part}: {error}")
                print(failed[-1], file=sys.stderr)
            # after each part: what is measured is kept, whatever comes
            bench.figures.write(options.json)
            options.svg.write_text(svg(bench.figures, machine()), encoding="utf-8")
    print(f"{machine()}\n\n{bench.figures.table()}")
    if failed:
        raise SystemExit("\n".join(failed))


main()
