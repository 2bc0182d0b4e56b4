from __future__ import annotations

import marshal
import os
import py_compile
from pathlib import Path

import pytest

from genwsgi.isolation.bytecode import cached
from genwsgi.isolation.scope import Addition, ScopeRules, find_scope
from genwsgi.isolation.store import Store
from tests.isolation.sources import write

MODES = py_compile.PycInvalidationMode


def compiled(path: Path, mode: MODES) -> Path:
    return Path(py_compile.compile(str(path), doraise=True, invalidation_mode=mode) or "")


@pytest.mark.parametrize("mode", MODES)
def test_valid_cache(tmp_path: Path, mode: MODES) -> None:
    """What Python has cached is taken, by time and size as well as by hash."""
    path = tmp_path / "kit.py"
    path.write_text("V = 1\n")
    compiled(path, mode)
    code = cached(str(path), path.read_bytes(), path.stat().st_mtime_ns)
    assert code is not None
    names: dict[str, object] = {}
    exec(marshal.loads(code), names)
    assert names["V"] == 1


@pytest.mark.parametrize("mode", MODES)
def test_stale_cache(tmp_path: Path, mode: MODES) -> None:
    """A cache that is not of just this source is not taken, not even an unchecked one."""
    path = tmp_path / "kit.py"
    path.write_text("V = 1\n")
    compiled(path, mode)
    path.write_text("V = 2\n")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 2_000_000_000))
    assert cached(str(path), path.read_bytes(), path.stat().st_mtime_ns) is None


def test_no_cache(tmp_path: Path) -> None:
    """Without a cache, and with one that is damaged or of another interpreter, there is none."""
    path = tmp_path / "kit.py"
    path.write_text("")
    assert cached(str(path), b"", 0) is None
    place = compiled(path, MODES.TIMESTAMP)
    good = place.read_bytes()
    for bad in (b"", good[:10], b"\0\0\0\0" + good[4:], good[:4] + b"\x08\0\0\0" + good[8:]):
        place.write_bytes(bad)
        assert cached(str(path), b"", path.stat().st_mtime_ns) is None


def test_snapshot_of_an_installed_package(tmp_path: Path) -> None:
    """A snapshot has an installed package's cached code under the real name, else compiles late."""
    installed = tmp_path / "site-packages"
    write(tmp_path, {"src/shop.py": ""})
    write(installed, {"kit/__init__.py": "V = 1\n", "kit/late.py": "V = 2\n", "kit/bad.py": "= ="})
    py_compile.compile(str(installed / "kit/__init__.py"), dfile="/elsewhere/kit.py")
    rules = ScopeRules(
        "shop", (str(tmp_path / "src"), str(installed)), additions=(Addition("kit", "why"),)
    )
    store = Store(str(tmp_path / "store"))
    first = store.take(find_scope(rules))
    held = store.open(first)
    assert store.take(find_scope(rules), (), held) == first
    places = {name: str(installed / "kit" / name) for name in ("__init__.py", "late.py", "bad.py")}
    stored = {n for n, p in places.items() if list(Path(store.path).rglob(f"{held.files[p]}.*bin"))}
    assert stored == {"__init__.py"}
    for name in ("__init__.py", "late.py"):
        assert held.code(places[name]).co_filename == places[name]
    assert list(Path(store.path).rglob(f"{held.files[places['late.py']]}.*bin"))
    with pytest.raises(SyntaxError):
        held.code(places["bad.py"])
    write(installed, {"kit/late.py": "V = 3\n"})
    assert held.source(places["late.py"]) == b"V = 2\n"
    assert store.take(find_scope(rules)) != first
    held.release()
