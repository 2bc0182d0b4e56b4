from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from multiprocessing import util

import pytest

from genwsgi.errors import BuildError
from genwsgi.isolation.effects import effects_of
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, torn_down

FORKING = """
    import os
    def say(what):
        return lambda: said.append((what, VERSION))
    os.register_at_fork(before=say("before"), after_in_parent=say("parent"))
    os.register_at_fork(before=say("earlier"), after_in_child=lambda: os._exit(40 + len(said)))
"""


def fork(child: Callable[[], object] = lambda: None) -> int:
    """Fork; return the exit code of a child that ends at once."""
    pid = os.fork()
    if pid == 0:
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# 3.12 warns of a fork beside other threads, such as the janitor: this child only exits.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_callbacks(site: Site) -> None:
    """Callbacks of the living generations are called in order, also in the child."""
    first, _ = site.two(shop=FORKING)
    assert fork() == 44
    order = [("earlier", 2), ("before", 2), ("earlier", 1), ("before", 1)]
    assert said == [*order, ("parent", 1), ("parent", 2)]
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    said.clear()
    assert fork() == 42
    assert said == [("earlier", 2), ("before", 2), ("parent", 2)]
    site.close()
    assert fork() == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_failed_build(told: list[str], site: Site) -> None:
    """A failed build's are gone, and one that raises stops no fork."""
    site.write(shop=FORKING + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    site.write(shop="import os\nos.register_at_fork(before=lambda: 1 / 0)\n")
    site.serve()
    assert fork() == 1
    assert said == []
    assert "its fork callback" in told[-1]
    site.write(shop="import os\nos.register_at_fork(before=1)\n")
    with pytest.raises(BuildError, match="TypeError"):
        site.build()


#: Calls what is to be called with an object in a forked process.
run_after_forkers: Callable[[], None] = vars(util)["_run_after_forkers"]

OF_OBJECTS = """
    from multiprocessing import util
    class Pool:
        def after_fork(self):
            said.append(VERSION)
    pool = Pool()
    util.register_after_fork(pool, Pool.after_fork)
"""


def test_callbacks_of_objects(site: Site) -> None:
    """What is to be called with an object after a fork is, and does not hold its generation."""
    first, second = site.two(shop=OF_OBJECTS)
    run_after_forkers()
    assert said == [1, 2]
    pool = weakref.ref(first.modules.modules["shop"].pool)
    site.pending.close()
    wait_until(lambda: pool() is None, what="the first generation is collected")
    said.clear()
    run_after_forkers()
    assert said == [2]
    effects = effects_of(second)
    assert effects is not None
    assert "1 fork callback" in effects.report()


def test_callbacks_of_objects_of_a_failed_build(site: Site) -> None:
    """A failed build is called no more, though its object may live."""
    site.write(shop=OF_OBJECTS + "    util.kept = pool\n    1 / 0\n")
    try:
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
        run_after_forkers()
        assert said == []
    finally:
        vars(util).pop("kept", None)
