from __future__ import annotations

import copy
import gc
import pickle
import sys
import textwrap
from pathlib import Path

import pytest

from genwsgi.errors import BuildError
from genwsgi.live import LiveApplication
from tests.helpers import wait_until
from tests.isolation.sources import APPLICATION, Site, call, torn_down, write


def test_lists_at_retirement(site: Site) -> None:
    """A retired generation's import hooks go, and it is collected, though its successor found them
    there; of a folder on the path one entry stays.
    """
    hooks, path = list(sys.meta_path), list(sys.path)
    try:
        for _ in range(3):
            site.write(
                shop="import sys\nclass Hook:\n    def find_spec(*_):\n        return None\n"
                "sys.meta_path.append(Hook())\nsys.path += ['/nowhere/' + 'else', '/more']\n"
            )
            generation = site.serve()
            assert generation.effects.report() == ["2 sys.path entries", "1 import hook"]
        wait_until(lambda: len(sys.meta_path) == len(hooks) + 1, what="old hooks are gone")
        wait_until(lambda: len(site.live.status()) == 1, what="the old ones are collected")
        assert sys.path.count("/nowhere/else") == 1
        assert generation.modules.modules["shop"].Hook is type(sys.meta_path[-1])
    finally:
        sys.path[:] = path


def test_removed_entries(site: Site) -> None:
    """What a failed build takes out of a list is put back where it was."""
    path = list(sys.path)
    site.write(
        shop="import sys\nsys.path[:] = ['/new', *sys.path[:1], *sys.path[3:]]\n"
        "sys.path_hooks.clear()\n1 / 0\n"
    )
    hooks = list(sys.path_hooks)
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert (sys.path, sys.path_hooks) == (path, hooks)


def test_folders_of_a_release(site: Site, tmp_path: Path) -> None:
    """A folder inside a release that has ended goes with it; others pass to the successor."""
    code = """
        import os, sys
        for folder in (os.path.join(os.path.dirname(__file__), "vendor"), "/gw-elsewhere"):
            if folder not in sys.path:
                sys.path.append(folder)
    """
    package = textwrap.dedent(code) + textwrap.dedent(APPLICATION)
    releases = [tmp_path / f"release-{n}" for n in (1, 2)]
    try:
        for release in releases:
            write(release, {"shop/__init__.py": package, "shop/vendor/lib.py": ""})
            site.path = (str(release),)
            site.serve()
        vendor = [str(release / "shop/vendor") for release in releases]
        wait_until(lambda: vendor[0] not in sys.path, what="the old release's folder is gone")
        assert [sys.path.count(folder) for folder in (vendor[1], "/gw-elsewhere")] == [1, 1]
    finally:
        sys.path[:] = [one for one in sys.path if "gw-else" not in one and "release-" not in one]


def test_collector_callbacks(site: Site) -> None:
    """The same shared function, added by each of two generations, is there for the second one."""
    code = "import gc\ngc.callbacks.append(zip)\ngc.callbacks.append(lambda *_: None)\n"
    before = list(gc.callbacks)
    try:
        first, second = site.two(shop=code)
        assert len(gc.callbacks) == len(before) + 4
        assert second.effects.report() == ["2 garbage collector callbacks"]
        site.pending.close()
        wait_until(lambda: torn_down(first), what="the first generation is torn down")
        assert len(gc.callbacks) == len(before) + 2
        site.close()
        assert gc.callbacks == before
    finally:
        gc.callbacks[:] = before


def test_hook_of_a_shared_library(site: Site) -> None:
    """What a shared library put on a list when it was loaded stays: it is not loaded again."""
    library = site.root / "site-packages" / "hooking_library.py"
    library.parent.mkdir()
    library.write_text(
        "import sys\nclass Hook:\n    def find_spec(*_):\n        return None\n"
        "sys.meta_path.append(Hook())\n"
    )

    def hooks() -> list[object]:
        return [hook for hook in sys.meta_path if type(hook).__module__ == "hooking_library"]

    sys.path.append(str(library.parent))
    try:
        site.write(shop="import hooking_library\n1 / 0\n")
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
        for number in range(3):
            site.write(shop=f"import hooking_library  # {number}\n")
            site.serve()
        assert len(hooks()) == 1
    finally:
        sys.path.remove(str(library.parent))
        sys.modules.pop("hooking_library", None)
        for hook in hooks():
            sys.meta_path.remove(hook)  # type: ignore[arg-type]


def test_what_the_serving_generation_does_meanwhile(site: Site) -> None:
    """A folder that a request puts on the path while a build fails stays; the build's own goes."""
    path, hooks = list(sys.path), list(gc.callbacks)
    site.write(
        shop="""
            import gc, sys
            def extend():
                sys.path.append("/gw-request")
                del sys.path[0]
                gc.callbacks.append(zip)
        """
    )
    serving = site.serve()
    site.write(
        shop="""
            import gc, sys
            sys.path.append("/gw-build")
            gc.callbacks.append(map)
            extend()
            sys.path.sort(key=lambda one: one != "/gw-build")
            second = sys.path.pop(1)
            sys.path += [second, "/gw-build-2"]
            1 / 0
        """
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.extend", lambda: call(serving, "shop", "extend"), raising=False)
        with pytest.raises(BuildError, match="ZeroDivisionError"):
            site.build()
    assert sorted(sys.path) == sorted([*path[1:], "/gw-request"])
    assert gc.callbacks == [*hooks, zip]
    gc.callbacks.pop()
    sys.path[:] = path


def test_another_list(site: Site) -> None:
    """A list that a failed build has put in the place of one has the build's entries no more."""
    path = list(sys.path)
    site.write(shop="import sys\nsys.path = ['/gw-build', *sys.path[1:]]\n1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert sys.path == path
    site.write(shop="import sys\nsys.path.append('/gw-build')\n1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    assert sys.path == path


def test_copies_are_plain_lists(site: Site) -> None:
    """What is pickled or copied of the path is a list like any, and so is the path at the end."""
    plain = sys.path
    site.close()
    assert type(sys.path) is list
    site.live = LiveApplication(site.target, site.store)
    for copied in (pickle.loads(pickle.dumps(sys.path)), copy.copy(sys.path), sys.path[:]):
        assert type(copied) is list
        assert copied == plain
