"""Tests of genwsgi.triggers.trust."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genwsgi.errors import OrderError
from genwsgi.triggers.trust import check_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A release root with one release in it, ``one``."""
    (tmp_path / "releases" / "one" / "shop").mkdir(parents=True)
    (tmp_path / "releases" / "one" / "shop" / "__init__.py").write_text("")
    for place in [tmp_path, *tmp_path.rglob("*")]:
        place.chmod(place.stat().st_mode & ~0o022)
    return tmp_path / "releases"


def refused(path: Path, *roots: Path, uid: int | None = None) -> str:
    """Return why ``path`` is refused."""
    with pytest.raises(OrderError) as refusal:
        check_folder(str(path), map(str, roots), uid)
    return str(refusal.value)


def test_a_release_below_a_root_is_taken_by_its_real_path(root: Path):
    """A folder below one of the roots is good; a link to it means what it leads to now."""
    (root / "current").symlink_to(root / "one")
    elsewhere = root.parent / "elsewhere"
    elsewhere.symlink_to(root)
    real = os.path.realpath(root / "one")
    assert check_folder(str(root / "one"), ["/nowhere", str(root)]) == real
    assert check_folder(str(root / "current"), [str(root)]) == real
    assert check_folder(str(elsewhere / "one"), [str(elsewhere)]) == real


def test_what_is_not_below_a_root_is_refused(root: Path):
    """Another folder, the root itself, a neighbour whose name begins alike, a way out by ``..`` or
    by a link, and any folder where no root is given: none of them may be named.
    """
    neighbour = root.parent / "releases-old"
    neighbour.mkdir()
    (root / "out").symlink_to(neighbour)
    for path in (neighbour, root, root / ".." / "releases-old", root / "out"):
        assert "is not below a release root" in refused(path, root)
    assert "none is given" in refused(root / "one")


def test_where_a_release_lies_right_in_a_root_nothing_deeper_may_be_named(root: Path):
    """A folder in a release, and one that a link right in the root leads to, are refused there."""
    inner = root / "one" / "vendor"
    inner.mkdir(mode=0o755)
    (root / "link").symlink_to(inner)
    roots = [str(root)]
    assert check_folder(str(root / "one"), roots, deep=False) == os.path.realpath(root / "one")
    assert check_folder(str(inner), roots) == os.path.realpath(inner)
    for path in (inner, root / "link"):
        with pytest.raises(OrderError, match="is not right in"):
            check_folder(str(path), roots, deep=False)


def test_where_no_root_is_asked_for_any_trustworthy_folder_will_do(root: Path):
    """Without release roots only the owners and modes of the folder and its way count."""
    real = os.path.realpath(root / "one")
    assert check_folder(str(root / "one"), None) == real
    (root / "one" / "shop").chmod(0o777)
    with pytest.raises(OrderError, match="others may write to"):
        check_folder(str(root / "one"), None)
    (root / "one" / "shop").chmod(0o755)
    root.chmod(0o777)
    with pytest.raises(OrderError, match=f"others may write to {root}"):
        check_folder(str(root / "one"), None)


def test_what_is_no_folder_is_refused(root: Path):
    """A path that leads nowhere, to a file, in a circle, or that no file can have is refused."""
    (root / "circle").symlink_to(root / "circle")
    assert "can't be followed: No such file" in refused(root / "two", root)
    assert "can't be followed" in refused(root / "circle", root)
    assert "null" in refused(Path("/a\0b"), root)
    (root / "file").write_text("")
    assert "is not a folder" in refused(root / "file", root)


@pytest.mark.parametrize("place", [".", "one", "one/shop", "one/shop/__init__.py"])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_what_others_may_write_is_refused(root: Path, place: str, bit: int):
    """From the root down to the last file nobody else may write, be it the group or everybody."""
    spoilt = root / place
    spoilt.chmod(spoilt.stat().st_mode | bit)
    assert "others may write to" in refused(root / "one", root)


def test_nobody_else_may_put_another_folder_in_the_place_of_the_root(root: Path):
    """Above the release root nobody else may write either, but in a sticky folder as /tmp is."""
    root.parent.chmod(0o1777)
    assert check_folder(str(root / "one"), [str(root)])
    root.parent.chmod(0o777)
    assert f"others may write to {root.parent}" in refused(root / "one", root)


def test_what_belongs_to_another_is_refused(root: Path):
    """What is neither this user's nor root's is refused."""
    if os.geteuid() == 0:
        os.chown(root / "one" / "shop" / "__init__.py", 12345, -1)
        assert "belongs to user 12345" in refused(root / "one", root)
    else:
        assert "belongs to user" in refused(root / "one", root, uid=os.geteuid() + 1)


def test_a_link_in_a_release_must_lead_to_what_is_as_safe(root: Path):
    """Code that a release links to must be nobody else's to write either, nor the way to it."""
    shared = root.parent / "shared"
    (shared / "deep").mkdir(parents=True)
    (shared / "deep" / "module.py").write_text("")
    for place in (shared, shared / "deep", shared / "deep" / "module.py"):
        place.chmod(place.stat().st_mode & ~0o022)
    (root / "one" / "linked").symlink_to(shared / "deep")
    (root / "one" / "broken").symlink_to(shared / "nothing")
    (root / "one" / "again").symlink_to(root / "one")
    assert check_folder(str(root / "one"), [str(root)])
    for place in (shared / "deep" / "module.py", shared / "deep", shared):
        place.chmod(place.stat().st_mode | 0o002)
        assert f"others may write to {place}" in refused(root / "one", root)
        place.chmod(place.stat().st_mode & ~0o002)


def test_a_link_in_a_release_may_not_be_turned_by_others(root: Path):
    """Neither by way of another link that is somebody else's, nor where nothing is as yet."""
    public = root.parent / "public"
    public.mkdir()
    public.chmod(0o1777)
    shared = root.parent / "shared"
    shared.mkdir(mode=0o755)
    (public / "turn").symlink_to(shared)
    link = root / "one" / "linked"
    link.symlink_to(public / "turn")
    assert check_folder(str(root / "one"), [str(root)])
    if os.geteuid() == 0:
        os.lchown(public / "turn", 12345, -1)
        assert f"{public / 'turn'} belongs to user 12345" in refused(root / "one", root)
    link.unlink()
    link.symlink_to(public / "nothing")
    assert f"others may write to {public}" in refused(root / "one", root)
