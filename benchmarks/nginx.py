"""nginx in front, with connections that it keeps, and wrk through it, while releases are deployed.

``python -m benchmarks.nginx`` prints a table, and ends with 1 if a connection of nginx's was closed
or opened because of a deploy, or if wrk or nginx complained.  The tests try the same with fewer
deploys (``tests/process/test_nginx.py``).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.process.nginx import NGINX, Run, run

ROW = "{:<10}{:>8}{:>10}{:>8}{:>8}{:>8}{:>8}"


def main() -> int:
    """Do what the command line says and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nginx", description=__doc__)
    parser.add_argument("--deploys", type=int, default=50, metavar="N")
    parser.add_argument("--every", type=float, default=0.5, metavar="SECONDS")
    options = parser.parse_args()
    missing = [name for name in (NGINX, "wrk") if shutil.which(name) is None]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    print(ROW.format("worker", "deploys", "requests", "errors", "kept", "closed", "opened"))
    good = True
    for worker_class in ("gthread", "gevent"):
        for deploys in (0, options.deploys):
            seconds = options.every if deploys else options.every * options.deploys
            with tempfile.TemporaryDirectory(prefix="gw") as folder:
                found = run(Path(folder), deploys, seconds, f"--worker-class={worker_class}")
            good = show(worker_class, found) and good
    return 0 if good else 1


def show(worker_class: str, found: Run) -> bool:
    """Print one row, and what was complained of; return whether all is well."""
    errors, kept, closed, opened = len(found.errors), found.kept, found.closed, found.opened
    row = (worker_class, found.deploys, found.requests, errors, kept, closed, opened)
    print(ROW.format(*row), flush=True)
    for error in found.errors:
        print(f"  {error}")
    return not (found.errors or closed or opened)


if __name__ == "__main__":
    sys.exit(main())
