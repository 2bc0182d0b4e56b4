from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from genwsgi.errors import OptionError, TargetError
from genwsgi.isolation.scope import Scope, ScopeRules, find_scope, is_installed
from tests.isolation.sources import write


def scope_of(root: Path, module: str = "shop", **more: Any) -> Scope:
    return find_scope(ScopeRules(module, (str(root),), **more))


def test_own_packages(tmp_path: Path) -> None:
    """All packages and modules beside the target are in the scope; other folders are not."""
    write(tmp_path, {"shop/__init__.py": "", "util.py": "", "uploads/x.txt": "", "a-b.py": ""})
    scope = scope_of(tmp_path)
    assert set(scope.packages) == {"shop", "util"}
    assert scope.packages["shop"].folders == (str(tmp_path / "shop"),)
    assert scope.packages["util"].file == str(tmp_path / "util.py")
    assert scope.roots == (str(tmp_path),)


def test_package_before_module(tmp_path: Path) -> None:
    """Of a package and a module with one name, the package is taken, as by ``import``."""
    write(tmp_path, {"shop/__init__.py": "", "shop.py": ""})
    assert scope_of(tmp_path).packages["shop"].file is None


def test_stdlib_and_server_are_shared(tmp_path: Path) -> None:
    """The standard library's names and the server's own are never in the scope."""
    write(tmp_path, {f"{name}.py": "" for name in ("shop", "json", "genwsgi", "gunicorn")})
    asked = ("json", "genwsgi", "gunicorn")
    assert set(scope_of(tmp_path, scope=asked).packages) == {"shop"}
    assert set(scope_of(tmp_path).left_out) == {"json"}
    assert scope_of(tmp_path, share=("json",)).left_out == {}
    with pytest.raises(TargetError, match="shared by all generations"):
        scope_of(tmp_path, "json")


def test_share(tmp_path: Path) -> None:
    """What is named with --share is left out, though it lies beside the application."""
    write(tmp_path, {"shop.py": "", "big.py": ""})
    assert set(scope_of(tmp_path, share=("big",)).packages) == {"shop"}


def test_folder_with_code_is_a_package(tmp_path: Path) -> None:
    """A folder without __init__.py is the application's own when there is code below it."""
    write(
        tmp_path, {"shop.py": "", "space/deep/one.py": "", "venv/a.py": "", "venv/pyvenv.cfg": ""}
    )
    write(tmp_path, {"media/2026/x.py": "", "pages/x.html": ""})
    assert set(scope_of(tmp_path).packages) == {"shop", "space"}


def test_folder_that_is_elsewhere_too_is_shared(tmp_path: Path) -> None:
    """A folder without __init__.py does not hide a package that an import would find before it."""
    home, lib = tmp_path / "home", tmp_path / "lib"
    write(home, {"shop.py": "", "yaml/one.py": "", "google/own.py": "", "own/one.py": ""})
    write(lib, {"yaml/__init__.py": "", f"google/x/theirs{EXTENSION_SUFFIXES[0]}": ""})
    scope = find_scope(ScopeRules("shop", (str(home), str(lib)), ()))
    assert set(scope.packages) == {"shop", "own"}
    reason = f"compiled modules in {lib / 'google'} belong to the same package"
    assert scope.left_out == {"google": reason}


def test_namespace_with_a_part_elsewhere(tmp_path: Path) -> None:
    """A namespace package that is ours in part is in the scope, and its other folders with it."""
    home, lib = tmp_path / "home", tmp_path / "lib"
    write(home, {"shop.py": "", "acme/own.py": ""})
    write(lib, {"acme/theirs.py": ""})
    found = find_scope(ScopeRules("shop", (str(home), str(lib)), ())).packages["acme"]
    assert found.folders == (str(home / "acme"), str(lib / "acme"))


def test_namespace_when_named(tmp_path: Path) -> None:
    """A folder without __init__.py is a package of the scope when somebody names it."""
    write(tmp_path, {"shop.py": "", "space/one.txt": ""})
    assert "space" not in scope_of(tmp_path).packages
    named = scope_of(tmp_path, scope=("space",)).packages["space"]
    assert named.folders == (str(tmp_path / "space"),)
    assert scope_of(tmp_path, "space.one").packages["space"].folders == named.folders


def test_installed_target(tmp_path: Path) -> None:
    """Of the packages installed beside the target, only the target's is in the scope."""
    installed = tmp_path / "site-packages"
    write(installed, {"shop/__init__.py": "", "flask/__init__.py": "", "other.py": ""})
    assert is_installed(str(installed))
    scope = scope_of(installed)
    assert set(scope.packages) == {"shop"}
    assert scope.watched == (str(installed / "shop"),)
    assert set(scope_of(installed, scope=("other",)).packages) == {"shop", "other"}


def test_own_folders(tmp_path: Path) -> None:
    """Folders named as the application's own are in the scope; the first one wins a name."""
    write(tmp_path, {"a/shop.py": "", "a/util.py": "", "b/util.py": "", "b/extra.py": ""})
    own = (str(tmp_path / "b"), str(tmp_path / "missing"))
    scope = find_scope(ScopeRules("shop", (str(tmp_path / "a"),), own))
    assert set(scope.packages) == {"shop", "util", "extra"}
    assert scope.packages["util"].file == str(tmp_path / "a/util.py")


def test_missing(tmp_path: Path) -> None:
    """A package that is nowhere on the path is an error that says where it was looked for."""
    with pytest.raises(TargetError, match=f"no module named 'shop' in {tmp_path}"):
        scope_of(tmp_path)
    write(tmp_path, {"shop.py": ""})
    missing = f"^no module named 'nowhere', which --scope names, in {tmp_path}; see --chdir"
    with pytest.raises(OptionError, match=missing):
        scope_of(tmp_path, scope=("nowhere",))


def test_symlinked_root_is_resolved(tmp_path: Path) -> None:
    """A symlinked release folder is resolved once; what is watched is the link."""
    write(tmp_path, {"r1/shop/__init__.py": "", "r2/shop/__init__.py": ""})
    link = tmp_path / "current"
    link.symlink_to("r1")
    first = scope_of(link)
    assert first.watched == (str(link),)
    link.unlink()
    link.symlink_to("r2")
    assert first.packages["shop"].folders == (str(tmp_path / "r1/shop"),)
    assert scope_of(link).packages["shop"].folders == (str(tmp_path / "r2/shop"),)


def test_namespace_over_several_folders(tmp_path: Path) -> None:
    """A named namespace package that is installed in parts has all its folders."""
    installed = [tmp_path / part / "site-packages" for part in ("x", "y")]
    for number, folder in enumerate(installed):
        write(folder, {f"space/part{number}.py": ""})
    write(tmp_path, {"src/shop.py": ""})
    path = (str(tmp_path / "src"), *map(str, installed))
    scope = find_scope(ScopeRules("shop", path, scope=("space",)))
    assert scope.packages["space"].folders == tuple(str(f / "space") for f in installed)


def test_names_found_by_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that only an import hook finds (an editable installation) can be named."""
    from importlib.machinery import PathFinder

    write(tmp_path, {"src/shop.py": "", "elsewhere/tool.py": "", "elsewhere/kit/__init__.py": ""})

    class Hook:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> object:
            return PathFinder.find_spec(name, [str(tmp_path / "elsewhere")])

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Hook])
    rules = ScopeRules("shop", (str(tmp_path / "src"),), scope=("tool", "kit"))
    packages = find_scope(rules).packages
    assert packages["tool"].file == str(tmp_path / "elsewhere/tool.py")
    assert packages["kit"].folders == (str(tmp_path / "elsewhere/kit"),)
