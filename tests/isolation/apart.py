"""An application in two live generations, of which each must see only its own modules."""

from __future__ import annotations

import gc
import importlib
import shutil
import weakref

from genwsgi.generations.generation import Generation
from tests.helpers import wait_until
from tests.isolation.sources import Site, call

TREE = {
    "shop__lazy": """
        import dataclasses, enum, typing
        V = "VERSION"
        @dataclasses.dataclass
        class Thing:
            x: object
            other: "typing.Optional[Thing]" = None
            version = V
        class Kind(enum.Enum):
            A = V
        def hinted(a: typing.List["Thing"], b: "Thing"): ...
    """,
    "shop__deep____init__": "",
    "shop__deep__er": "from .. import lazy as up\nfrom ..lazy import V\n",
    "shop__onlyVERSION": "",
}


def tree(site: Site, version: str, **more: str) -> None:
    """Write the application in one version, with further modules, in place of what is there."""
    files = {**TREE, **more}
    site.replace(
        **{
            name.replace("VERSION", version): text.replace("VERSION", version)
            for name, text in files.items()
        }
    )


def each_sees_itself(site: Site, code: str, **more: str) -> None:
    """Call ``ask`` of ``code`` in both generations: it must return the generation's own version.

    The first call is made when the files have changed, the second when they are gone.

    :param code: the module ``shop.asking``.
    :param more: further modules; in all of them VERSION is "1" or "2".
    """
    generations: list[Generation] = []
    for version in ("1", "2"):
        tree(site, version, **{"shop": "", "shop__asking": code, **more})
        generations.append(site.serve())
        if version == "1":
            site.pending = site.request()
        call(generations[-1], "shop.asking", "__class__", "x")  # imported, and nothing lazy yet
    for _ in range(2):
        for version, generation in zip(("1", "2"), generations, strict=True):
            assert call(generation, "shop.asking", "ask") == version
        shutil.rmtree(site.root, ignore_errors=True)
    # Nobody's code means the current generation.
    assert importlib.import_module("shop.asking").ask() == "2"
    # And nothing that was done keeps an ended generation alive.
    old = weakref.ref(generations[0].modules)
    generations.clear()
    del generation
    site.pending.close()
    wait_until(lambda: gc.collect() >= 0 and old() is None, what="generation 1 is collected")
