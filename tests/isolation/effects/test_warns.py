from __future__ import annotations

import warnings

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.sources import Site, torn_down

FILTER = "import warnings\nwarnings.filterwarnings('ignore', 'gw-said', append={})\n"


def count() -> int:
    """Return how many filters for the tests' message there are."""
    return sum("gw-said" in getattr(one[1], "pattern", "") for one in warnings.filters)


@pytest.mark.parametrize("append", [False, True])
def test_equal_filters(site: Site, append: bool) -> None:
    """A filter that two generations have added goes with the second one."""
    with warnings.catch_warnings():
        first, second = site.two(shop=FILTER.format(append))
        assert count() == 1
        assert second.effects.report() == ["1 warning filter"]
        site.pending.close()
        wait_until(lambda: torn_down(first), what="the first generation is torn down")
        assert count() == 1
        site.write(shop="")
        site.serve()
        wait_until(lambda: torn_down(second), what="the second generation is torn down")
        assert count() == 0


def test_the_process_s(site: Site) -> None:
    """A filter that the process had before stays, whoever adds it again."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "gw-said")
        site.write(shop=FILTER.format(False))
        site.serve()
        site.close()
        assert count() == 1


def test_failed_build(site: Site) -> None:
    """A failed build's filters are gone, and with them its classes."""
    site.write(
        shop="import warnings\nclass GwOld(Warning): ...\n"
        "warnings.simplefilter('error', GwOld)\n1 / 0\n"
    )
    with warnings.catch_warnings():
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
        assert not [one for one in warnings.filters if "GwOld" in str(one[2])]


def test_filters_reset(site: Site) -> None:
    """That an application has cleared the filters since is no error."""
    with warnings.catch_warnings():
        site.write(shop=FILTER.format(False) + "warnings.resetwarnings()\n")
        site.serve()
        site.close()
        assert count() == 0
