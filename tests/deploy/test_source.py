from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from genwsgi.deploy.protocol import Release
from genwsgi.deploy.source import Source
from genwsgi.errors import OrderError, SnapshotError, SourceError, TargetError
from genwsgi.isolation.scope import Addition, Scope, ScopeRules
from genwsgi.isolation.store import Store
from tests.isolation.sources import write


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with the target ``shop``."""
    root = tmp_path / "src"
    write(root, {"shop/__init__.py": "V = 1\n", "shop/cart.py": "", "tools.py": ""})
    return root


@pytest.fixture
def source(tmp_path: Path, tree: Path) -> Source:
    """The source that reads it."""
    return Source(ScopeRules("shop", (str(tree),)), Store(str(tmp_path / "store")))


def held(source: Source, digest: str) -> bool:
    """Whether anybody in this process still holds the snapshot."""
    source.store.sweep(())
    return digest in source.store.digests()


def test_snapshot_is_of_the_tree_as_it_is_now(source: Source, tree: Path) -> None:
    """What is taken is the tree at that moment, and equal trees have equal digests."""
    first = source.take()
    assert source.take(first) == first
    write(tree, {"shop/__init__.py": "V = 2\n"})
    second = source.take(first)
    assert second != first
    write(tree, {"shop/__init__.py": "V = 1\n"})
    assert source.take(second) == first
    kept = source.store.open(second)
    try:
        assert kept.source(str(tree.resolve() / "shop" / "__init__.py")) == b"V = 2\n"
    finally:
        kept.release()


def test_scope_is_looked_up_anew(source: Source, tree: Path) -> None:
    """A package that came after the first snapshot is in the next one."""
    assert set(source.scope().packages) == {"shop", "tools"}
    before = source.take()
    write(tree, {"billing/__init__.py": ""})
    assert set(source.scope().packages) == {"shop", "tools", "billing"}
    assert source.take(before) != before


def test_target_that_vanished(source: Source, tree: Path) -> None:
    """Without its target the tree can't be taken, and the error names it."""
    digest = source.take()
    (tree / "shop").rename(tree / "shop-away")
    with pytest.raises(TargetError, match="no module named 'shop'"):
        source.take(digest)


def test_new_flaw_is_refused(source: Source, tree: Path) -> None:
    """A changed file that does not compile is refused with its line; what was taken stays."""
    digest = source.take()
    write(tree, {"shop/cart.py": "def ring(:\n"})
    with pytest.raises(SourceError) as caught:
        source.take(digest)
    assert caught.value.path == str(tree.resolve() / "shop" / "cart.py")
    assert "def ring(:" in caught.value.traceback
    assert digest in source.store.digests()
    assert not held(source, digest), "the committed snapshot was not let go"


def test_old_flaw_is_let_alone(source: Source, tree: Path) -> None:
    """A file that was broken when the server started is not held against a later release."""
    write(tree, {"shop/template.py": "{{ name }} ="})
    digest = source.take()
    write(tree, {"shop/__init__.py": "V = 2\n"})
    assert source.take(digest) != digest
    assert not held(source, digest), "the committed snapshot was not let go"


def test_further_files_belong_to_the_release(tmp_path: Path, tree: Path) -> None:
    """A change of a file that is no source, but belongs to the release, gives another digest."""
    page = tmp_path / "page.html"
    page.write_text("one")
    asked: list[Scope] = []

    def others(scope: Scope) -> Iterable[str]:
        asked.append(scope)
        return [str(page)]

    rules = ScopeRules("shop", (str(tree),))
    source = Source(rules, Store(str(tmp_path / "store")), others)
    first = source.take()
    assert source.take(first) == first
    page.write_text("two")
    assert source.take(first) != first
    assert [set(scope.packages) for scope in asked] == [{"shop", "tools"}] * 3


def test_committed_snapshot_that_is_lost(source: Source) -> None:
    """Without the snapshot that is served nothing new can be compared to it: that is an error."""
    with pytest.raises(SnapshotError, match="can't be opened"):
        source.take("0" * 16)


def test_growth_lasts(source: Source, tree: Path, tmp_path: Path) -> None:
    """What the scope has grown by is in every later snapshot, and in those of a new process."""
    installed = tmp_path / "site-packages"
    write(installed, {"kit/__init__.py": ""})
    source.rules = replace(source.rules, path=(*source.rules.path, str(installed)))
    source.take()
    source.grow([Addition("kit", "imports shop"), Addition("gone", "imports kit")])
    source.grow([Addition("kit", "said again")])
    digest = source.take()
    again = Source(replace(source.rules, additions=()), source.store)
    assert again.take(digest) == digest
    assert [item.reason for item in again.rules.additions] == ["imports kit", "imports shop"]
    package = again.scope().packages["kit"]
    assert package.reason == "imports shop"
    assert "gone" not in again.scope().packages
    assert again.scope().watched == (str(tree),), "an installed package is watched"


def test_growth_for_one_snapshot(source: Source, tree: Path, tmp_path: Path) -> None:
    """What joins the scope for one snapshot is in later ones only if that one is committed."""
    installed = tmp_path / "site-packages"
    write(installed, {"kit/__init__.py": ""})
    source.rules = replace(source.rules, path=(*source.rules.path, str(installed)))
    small = source.take()
    large = source.take(small, [Addition("kit", "imports shop")])
    assert large != small
    assert source.take(small) == small
    assert source.take(large) == large


# -- folders of orders


def test_what_was_rolled_back_from_is_read_as_before(
    source: Source, tree: Path, tmp_path: Path
) -> None:
    """A new process that goes on after a rollback reads the files with the scope they had: so they
    are recognised as what was set aside.  What is not kept any more is passed over.
    """
    write(tmp_path / "site", {"kit.py": "import shop\n"})
    rules = replace(source.rules, path=(str(tree), str(tmp_path / "site")))
    source.rules = rules
    first = source.take()
    bad = source.take(first, [Addition("kit", "imports shop")])
    assert bad != first
    again = Source(rules, source.store)
    again.resume(Release(3, first, "rollback", "", 0.0, aside=("gone", bad), back_to=1))
    assert again.take(first) == bad


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A folder that holds one package of the application, in a newer version."""
    root = tmp_path / "newer"
    write(root, {"tools.py": "V = 2\n"})
    return root


def test_a_folder_of_an_order_is_read_first(source: Source, tree: Path, newer: Path) -> None:
    """What it holds is taken from there, and what it doesn't from where it was."""
    digest = source.take()
    reading = source.read(digest, path=[str(newer)], modules=["tools", "shop.cart"])
    assert reading.path == (str(newer),)
    with_both = source.store.open(reading.digest)
    with_both.release()
    assert with_both.tops["tools"] == (str(newer.resolve() / "tools.py"),)
    assert with_both.tops["shop"] == (str(tree.resolve() / "shop"),)
    assert source.take(reading.digest) == digest, "the folder is this reading's only"
    assert str(newer) in source.scope([str(newer)]).watched


def test_a_folder_that_gives_nothing_any_more_is_left_out(
    source: Source, tmp_path: Path, newer: Path
) -> None:
    """A folder that newer ones hide altogether, or that is gone, is no part of the release."""
    newest = tmp_path / "newest"
    write(newest, {"tools.py": "V = 3\n", "shop/__init__.py": ""})
    path = [str(newest), str(newer), str(tmp_path / "gone")]
    reading = source.read(source.take(), path=path)
    assert reading.path == (str(newest),)
    assert source.read(reading.digest, path=reading.path) == reading


def test_a_folder_without_code_of_the_application_is_refused(
    source: Source, tmp_path: Path
) -> None:
    """An order that names a folder in which nothing is found is refused, not passed over."""
    empty = tmp_path / "empty"
    write(empty, {"notes.txt": ""})
    with pytest.raises(OrderError, match="holds no package or module"):
        source.read(source.take(), path=[str(empty)], asked=str(empty))


@pytest.mark.parametrize("name", ["json", "shop.none", "shop.cart.deeper", "tool"])
def test_a_module_that_is_not_in_the_scope_is_refused(source: Source, name: str) -> None:
    """An order that names a module which is not there, or shared, is refused with its name."""
    with pytest.raises(OrderError, match=f"no module {name} in the scope"):
        source.read(source.take(), modules=["shop", name])


def test_reading_says_what_to_watch(source: Source, tree: Path, tmp_path: Path) -> None:
    """Folders that a reading has found are watched, and they still are after a restart."""
    folder = tmp_path / "plugins"
    write(folder, {"extra.py": ""})
    small = source.read()
    assert small.watched == (str(tree),)
    addition = Addition("", "the application puts it on sys.path", str(folder))
    large = source.read(small.digest, [addition])
    assert large.watched == (str(tree), str(folder))
    release = Release(2, large.digest, "ctl", "", 0.0)
    again = Source(source.rules, source.store)
    assert again.resume(release).watched == (str(tree), str(folder))
    assert again.take(large.digest) == large.digest
    assert not held(source, large.digest)


def test_what_is_left_out_is_said(
    source: Source, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What of the application no deploy can renew is named with the reason, once for each name."""
    write(tree, {"json.py": ""})
    assert set(source.warn_of_left_out(logging.getLogger("genwsgi.tests"))) == {"json"}
    (said,) = caplog.messages
    assert said == (
        "the application's own json is not renewed by deploys: it has the name of a module of the "
        "standard library: rename it"
    )
