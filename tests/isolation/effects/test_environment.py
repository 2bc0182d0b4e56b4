from __future__ import annotations

import os
import time

import pytest

from genwsgi.errors import BuildError
from tests.isolation.sources import Site, call

CHANGING = """
    import os
    os.environ["GW_NEW"] = "secret"
    os.environ["GW_CHANGED"] = "secret"
    del os.environ["GW_REMOVED"]
    import time
    os.environ["TZ"] = "GWT-9"
    time.tzset()
"""


@pytest.fixture
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GW_CHANGED", "1")
    monkeypatch.setenv("GW_REMOVED", "2")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("GW_NEW", raising=False)
    time.tzset()


@pytest.mark.usefixtures("_variables")
def test_reported(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Variables that a build changed are told by name, their values never; unchanged ones not."""
    caplog.set_level("INFO", logger="genwsgi")
    before = dict(os.environ)
    site.write(shop=CHANGING.partition("    import time")[0])
    generation = site.serve()
    names = "environment GW_CHANGED, GW_NEW, GW_REMOVED"
    assert generation.effects.report() == [names]
    assert f"generation 1 did to the process: {names}" in caplog.text
    assert "secret" not in caplog.text
    caplog.clear()
    site.write(shop="import os\nos.environ['GW_NEW'] = 'secret'\n")
    assert site.serve().effects.report() == []
    assert "did to the process" not in caplog.text
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("_variables")
def test_failed_build(site: Site) -> None:
    """A failed build's changes are undone, but not over what somebody else has set since."""
    before = dict(os.environ)
    site.write(shop=CHANGING + "    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert dict(os.environ) == before
    assert time.tzname[0] == "UTC"
    site.write(shop=CHANGING)
    generation = site.build()
    os.environ["GW_CHANGED"] = "3"
    site.live.discard(generation)
    assert dict(os.environ) == {**before, "GW_CHANGED": "3"}
    os.environ["GW_CHANGED"] = "1"
    assert time.tzname[0] == "UTC"


@pytest.mark.usefixtures("_variables")
def test_what_the_serving_generation_sets_meanwhile(site: Site) -> None:
    """What a failed build undoes is its own: what others set while it was built stays."""
    site.write(
        shop="""
            import os
            def renew(name, value):
                os.environ[name] = value
        """
    )
    serving = site.serve()
    os.environ["GW_NEW"] = "old"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "builtins.renew", lambda *what: call(serving, "shop", "renew", *what), raising=False
        )
        site.write(
            shop="""
                import os
                os.environ["GW_CHANGED"] = "mine"
                os.environb[b"GW_REMOVED"] = b"mine"
                renew("GW_NEW", "fresh")
                renew("GW_CHANGED", "fresh")
                os.environ["GW_CHANGED"] = "mine again"
                1 / 0
            """
        )
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
    assert [os.environ[f"GW_{name}"] for name in ("NEW", "CHANGED", "REMOVED")] == [
        "fresh",
        "fresh",
        "2",
    ]
    os.environ["GW_CHANGED"] = "1"
    del os.environ["GW_NEW"]
