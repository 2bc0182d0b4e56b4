from __future__ import annotations

import gc
import sys
import typing
import weakref

import pytest

from tests.helpers import wait_until
from tests.isolation.sources import Site, torn_down


@pytest.mark.skipif(sys.version_info < (3, 11), reason="overloads are kept from 3.11 on")
def test_overloads_are_forgotten(site: Site) -> None:
    """The typing module forgets the overloaded functions of a generation that has ended."""
    code = "import typing\n{}@typing.overload\ndef f(a: int): ...\ndef f(a): ...\n"
    site.write(shop=code.format(""))
    first = site.serve()
    builtins = first.modules.builtins
    site.write(shop=code.format("\n\n"))
    site.serve()
    wait_until(lambda: torn_down(first), what="the generation is torn down")
    registry = typing._overload_registry["shop"]["f"]  # type: ignore[attr-defined]
    wait_until(lambda: len(registry) == 1, what="one overload is left")
    assert all(f.__builtins__ is not builtins for f in registry.values())
    gc.collect()


def test_a_name_that_is_more_than_a_string(site: Site) -> None:
    """A class whose qualified name leads back to it is collected with its generation."""
    site.write(
        shop="class Name(str):\n    pass\n"
        "class Proxy:\n    __qualname__ = Name(__qualname__)\n    shown = __qualname__\n"
        "Proxy.__qualname__.made_by = Proxy\n"
    )
    first = site.serve()
    proxy = weakref.ref(first.modules.modules["shop"].Proxy)
    site.write(shop="")
    site.serve()
    wait_until(lambda: proxy() is None, what="the class is collected")
