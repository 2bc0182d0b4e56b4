from __future__ import annotations

import pytest

from tests.helpers import wait_until
from tests.isolation.sources import Site


def test_stragglers_are_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that outlives its generation is named in the log."""
    site.write(
        shop="import threading\nstop = threading.Event()\n"
        "threading.Thread(target=stop.wait, name='gw-straggler', daemon=True).start()\n"
    )
    stop = site.serve().modules.modules["shop"].stop
    site.write(shop="")
    site.serve()
    wait_until(lambda: "threads still run: gw-straggler" in caplog.text, what="the warning")
    stop.set()
