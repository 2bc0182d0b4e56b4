from __future__ import annotations

import sys

import pytest

from genwsgi.errors import BuildError, SnapshotError, TargetError
from genwsgi.generations.lifecycle import State
from tests.isolation.fixtures import site
from tests.isolation.sources import LAZILY, Site, call

__all__ = ["site"]


def failure(site: Site, **files: str) -> BuildError:
    site.write(**files)
    with pytest.raises(BuildError) as caught:
        site.build()
    return caught.value


def test_traceback_is_the_application_s(site: Site) -> None:
    """The traceback shows the application's frames, causes included, and none of the machinery."""
    error = failure(
        site,
        shop="import shop.a\n",
        shop__a="from .b import C\n",
        shop__b="def inner():\n    try:\n        1 / 0\n    except ZeroDivisionError as error:\n"
        "        raise RuntimeError('no') from error\nclass C:\n    inner()\n",
    )
    assert error.reason == "RuntimeError: no"
    text = error.traceback
    for frame in ("shop/__init__.py", "shop/a.py", "shop/b.py", "in inner", "class C", "1 / 0"):
        assert frame.replace("class C", "in C") in text
    assert "direct cause" in text
    for machinery in ("genwsgi/", "importlib"):
        assert machinery not in text
    assert error.__cause__ is None
    assert error.__context__ is None


def test_syntax_error(site: Site) -> None:
    """A syntax error shows the line and the caret."""
    error = failure(site, shop="import shop.bad\n", shop__bad="x = = 1\n")
    assert "x = = 1" in error.traceback
    assert "^" in error.traceback
    assert error.reason.startswith("SyntaxError")


@pytest.mark.parametrize(
    "raised", ["SystemExit(3)", "KeyError('k')", "ImportError('i')", "GeneratorExit"]
)
def test_whatever_the_application_raises(site: Site, raised: str) -> None:
    """Whatever is raised at import, an exit included, is the application's mistake."""
    assert raised.split("(")[0] in failure(site, shop=f"raise {raised}\n").reason


def test_reason_of_a_long_message(site: Site) -> None:
    """The reason is the line that names the exception, however many lines its message has."""
    assert failure(site, shop="raise ValueError('one\\ntwo\\n')\n").reason == "ValueError: one"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are of 3.11")
def test_exception_group(site: Site) -> None:
    """Exceptions inside a group are shown without the machinery's frames as well."""
    error = failure(
        site,
        shop="try:\n    import shop.bad\nexcept ValueError as e:\n"
        "    raise ExceptionGroup('g', [e])\n",
        shop__bad="raise ValueError(1)\n",
    )
    assert "shop/bad.py" in error.traceback
    assert "importlib" not in error.traceback


def test_keyboard_interrupt(site: Site) -> None:
    """Ctrl-C goes through, and the generation is torn down all the same."""
    site.write(shop="raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        site.build()
    assert "shop" not in sys.modules


def test_misspelt_or_broken(site: Site) -> None:
    """A name that isn't there is the target's fault; a module the application lacks is its own."""
    site.write(shop="")
    site.live._target = type(site.target)("shop.wsgi:app", "shop.wsgi", "app")
    with pytest.raises(TargetError, match=r"no module named 'shop\.wsgi'"):
        site.build()
    site.write(shop__wsgi="")
    with pytest.raises(TargetError, match="has no 'app'"):
        site.build()
    site.write(shop__wsgi="import shop.missing\n")
    with pytest.raises(BuildError, match=r"ModuleNotFoundError: No module named 'shop\.missing'"):
        site.build()


def test_factory_raises(site: Site) -> None:
    """An exception in the factory is shown with the factory's frame."""
    site.write(app="def create_app():\n    raise LookupError('db')\n")
    site.live._target = type(site.target)("app:create_app", "app", "create_app", (), {})
    site.write(shop="")
    site.target = site.live._target
    with pytest.raises(BuildError) as caught:
        site.build()
    assert "in create_app" in caught.value.traceback
    assert "target.py" not in caught.value.traceback


def test_damaged_snapshot(site: Site) -> None:
    """A damaged snapshot is neither the target's fault nor the application's."""
    site.write(shop="")
    digest = site.take()
    snapshot = site.store.open(digest)
    for key in snapshot.files.values():
        path = next(p for p in (site.root.parent / "store/objects").iterdir() if p.suffix == ".bin")
        path.write_bytes(b"\0")
        assert key
    snapshot.release()
    with pytest.raises(SnapshotError, match="bytecode"):
        site.live.build(digest, "damaged")


def test_ready_and_discarded(site: Site) -> None:
    """A build that succeeds is ready; discarded, it leaves nothing, and the served goes on."""
    site.write(shop=LAZILY, shop__lazy="V = 1")
    serving = site.serve()
    site.write(shop__new="", shop="import shop.new\n")
    ready = site.build()
    state: State = ready.state
    assert state is State.READY
    assert callable(ready.application)
    site.live.discard(ready)
    assert ready.state is State.DISCARDED
    assert ready.application is None
    assert "shop.new" not in sys.modules
    assert call(serving, "shop", "ask") == 1
    site.store.sweep([])
    assert len(site.store.digests()) == 1


def test_progress(site: Site) -> None:
    """Whoever builds is told after each module, and no more when the build has ended."""
    site.write(shop="import shop.a, shop.b\n", shop__a="", shop__b="", shop__c="")
    told: list[int] = []
    generation = site.live.build(site.take(), "r", told.append)
    assert told == [2, 3, 3]
    generation.run(generation.modules.import_module, "shop.c")
    assert len(told) == 3
    site.live.discard(generation)
