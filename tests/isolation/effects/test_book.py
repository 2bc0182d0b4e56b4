from __future__ import annotations

import atexit
import logging
import sys
import threading
from pathlib import Path

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import LAZILY, Site, call, write


def test_shared_modules_speak_for_the_process(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shared module registers while it is imported outlives the generation that did it."""
    write(
        tmp_path / "lib",
        {
            "registering_library.py": """
                import atexit, logging, threading
                def at_the_end():
                    said.append("too early")
                atexit.register(at_the_end)
                handler = logging.NullHandler()
                logging.getLogger("registering_library").addHandler(handler)
            """
        },
    )
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "lib"))
        first, second = site.two(shop="import registering_library\n")
    library = sys.modules.pop("registering_library")
    site.pending.close()
    wait_until(lambda: first.modules.closed, what="the generation is torn down")
    logger = logging.getLogger("registering_library")
    assert said == []
    assert logger.handlers == [library.handler]
    assert second.run(lambda: logger.handlers) == [library.handler]
    atexit.unregister(library.at_the_end)
    logger.removeHandler(library.handler)


FAILING = """
    import atexit, logging, sys, threading
    import shop.other
    sys.path.insert(0, "/nowhere/in/particular")
    class Hook:
        def find_spec(self, name, path=None, target=None):
            return None
    sys.meta_path.insert(0, Hook())
    sys.path_hooks.append(lambda path: 1 / 0)
    atexit.register(said.append, "exit")
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("gw.failing").handlers.append(logging.NullHandler())
    def run():
        import time
        while True:
            time.sleep(0.01)
    thread = threading.Thread(target=run, name="gw-failing", daemon=True)
    thread.start()
    1 / 0
"""


# pytest's hook, unlike Python's own, reports a thread that SystemExit has ended.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_failed_build_leaves_no_trace(site: Site) -> None:
    """Nothing of a failed build is left, and the serving generation goes on importing lazily."""
    site.write(shop=LAZILY, shop__lazy="V = 1")
    serving = site.serve()
    site.write(shop=FAILING, shop__other="", shop__lazy="V = 2")
    before = (list(sys.path), list(sys.meta_path), list(sys.path_hooks))
    proxies = set(sys.modules)
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert (list(sys.path), list(sys.meta_path), list(sys.path_hooks)) == before
    assert set(sys.modules) == proxies
    assert "shop.other" not in sys.modules
    assert logging.getLogger("gw.failing").handlers == []
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name == "gw-failing"],
        what="the failed build's thread has stopped",
    )
    assert call(serving, "shop", "ask") == 1
    assert said == []
