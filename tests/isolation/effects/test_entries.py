"""Tests of genwsgi.isolation.effects.entries."""

from __future__ import annotations

import gc
import json
import sys
import weakref

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.sources import Site

CHANGING = """
    import sys
    from types import ModuleType
    sys.modules["made_up"] = ModuleType("made_up")
    sys.modules["made_up"] = ModuleType("made_up_again")
    import json
    sys.modules.pop("json")
    sys.modules["json.decoder"] = ModuleType("json.decoder")
"""


def test_a_failed_build_changes_no_entry_of_others(site: Site) -> None:
    """What a failed build puts into sys.modules, or takes out, under a shared name is undone."""
    decoder = sys.modules["json.decoder"]
    site.write(shop="")
    site.serve()
    site.write(shop=CHANGING + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert "made_up" not in sys.modules
    assert sys.modules["json"] is json
    assert sys.modules["json.decoder"] is decoder


def test_a_good_builds_entries_stay(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a build that succeeds puts there is everybody's, and is there after its generation."""
    monkeypatch.setitem(sys.modules, "made_up", json)
    site.write(
        shop='import sys\nfrom types import ModuleType as M\nsys.modules["made_up"] = M("x")\n'
    )
    site.serve()
    found = sys.modules["made_up"]
    site.write(shop="V = 2\n")
    first = weakref.ref(site.live.current.modules)  # type: ignore[union-attr]
    site.serve()
    wait_until(lambda: first() is None, what="the first generation is gone")
    assert sys.modules["made_up"] is found


def test_a_generations_own_module_goes_with_it(site: Site) -> None:
    """A module of the generation under a shared name goes with it, to what was there before."""
    site.write(shop='import sys\nsys.modules["made_up"] = sys.modules[__name__]\n')
    for _ in range(3):
        site.serve()
    table = weakref.ref(site.live.current.modules)  # type: ignore[union-attr]
    site.write(shop="V = 2\n")
    site.serve()
    wait_until(lambda: table() is None, what="the last such generation is gone")
    gc.collect()
    assert "made_up" not in sys.modules
