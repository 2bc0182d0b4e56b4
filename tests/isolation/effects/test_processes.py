from __future__ import annotations

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site

STARTING = """
    import multiprocessing, subprocess, time
    first = subprocess.Popen(["sleep", "60"])
    second = multiprocessing.get_context("fork").Process(
        target=time.sleep, args=(60,), name="gw-process", daemon=True
    )
    second.start()
    subprocess.run("true; # secret", shell=True, check=True)
    said.extend([first, second])
"""


def end() -> tuple[int, int]:
    """End the two processes, and return their numbers."""
    first, second = said
    numbers = first.pid, second.pid
    for process in (first, second):
        process.kill()
    first.wait()
    second.join()
    return numbers


# CPython 3.12 and later warn of a fork where there are threads.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_those_of_a_failed_build(told: list[str], site: Site) -> None:
    """Processes of a failed build that still run are named, without their arguments."""
    site.write(shop=STARTING + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    first, second = end()
    assert (
        "generation 1 is undone but processes that it started still run:"
        f" {first} (sleep), {second} (gw-process)"
    ) in told


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_those_of_a_retired_generation(told: list[str], site: Site) -> None:
    """They are reported while their generation serves, and named when it retires."""
    site.write(shop=STARTING)
    generation = site.serve()
    assert "2 processes" in generation.effects.report()
    said[0].kill()
    said[0].wait()
    assert "1 process" in generation.effects.report()
    site.write(shop="")
    site.serve()
    named = "generation 1 has retired but processes that it started still run: "
    wait_until(lambda: any(line.startswith(named) for line in told), what="the warning")
    _, second = end()
    assert f"{named}{second} (gw-process)" in told
