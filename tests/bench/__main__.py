"""``make bench``: what labctl costs, side by side with the floor beneath it and a peer, in one run.

The floor of the command line is a Python that does nothing; that of a start is QEMU booting the same image by itself,
or loading a state that it saved itself, until its guest agent answers. Ratios are of runs in turn, so that they hold
where the machine's speed drifts; figures are medians.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from tests.bench import peer
from tests.bench.figures import FailedError
from tests.bench.labs import clear, home
from tests.bench.machine import described, largest
from tests.bench.plot import svg
from tests.bench.sections import Bench

PARTS = ("command-line", "start", "scale", "verify", "checkpoint", "skew", "class", "peer")
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, print a table, write JSON and a picture. Gives the exit status."""
    options = _options()
    failed = []
    with home() as folder:
        machine = described()
        bench = Bench(folder, options.runs, options.most, options.students)
        for part in options.only or PARTS:
            try:
                if part == "peer":
                    peer.measure(bench.figures, folder, options.runs)
                else:
                    bench.parts[part]()
            except Exception as error:  # whatever it is, the other parts are worth their time all the same
                failed.append(part)
                print(f"{part} failed: {error}", file=sys.stderr)
                if not isinstance(error, FailedError):
                    traceback.print_exc()
                clear()
            # after each part: what is measured is kept, whatever comes
            if options.json:
                bench.figures.write(options.json, machine, failed)
            if options.svg:
                options.svg.write_text(svg(bench.figures, machine, failed), encoding="utf-8")
    print("\n".join([*machine.values(), "", bench.figures.table()]))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    """What is asked for. Without a word about files, all parts together go into the repository's own results."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    most, where = largest(), f"{RESULTS.name}/bench"
    parser.add_argument("--runs", type=int, default=3, help="runs of each slow figure (3)")
    parser.add_argument("--most", type=int, default=most, help=f"machines in the largest lab: 3, 8, 30 or 90 ({most})")
    parser.add_argument(
        "--students", type=int, default=8, help="students of the class, three machines each (8); 30 for 90 machines"
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--json", type=Path, help=f"write the figures to this file ({where}.json of a whole run)")
    parser.add_argument("--svg", type=Path, help=f"draw the figures into this file ({where}.svg of a whole run)")
    options = parser.parse_args()
    if not options.only:  # some parts of one run beside others of another would be compared with each other
        options.json = options.json or RESULTS / "bench.json"
        options.svg = options.svg or RESULTS / "bench.svg"
    return options


sys.exit(main())
