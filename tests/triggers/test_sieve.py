"""Which files matter."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genwsgi.triggers.sieve import DEFAULT_IGNORE, Sieve, relative

SIEVE = Sieve(["*.html", ".env*", "conf/*.yaml"], DEFAULT_IGNORE)
ODD = st.text(st.sampled_from("ab./\\*[-"), max_size=12)


@pytest.mark.parametrize(
    "path",
    [
        "__pycache__/m.py",
        "a/.git/x.py",
        "node_modules/p/setup.py",
        ".venv/lib/m.py",
        "m.pyc",
        ".m.py.swp",
        "m.py~",
        ".#m.py",
        "#m.py#",
        "4913",
        "m.py.tmp",
        "m.py.bak",
        "m.py___jb_tmp___",
        ".m.py.a1B2c3",
        "pkg/.m.py.Qwerty",
    ],
)
def test_what_programs_leave_beside_the_source_is_ignored(path):
    """Caches, version control, environments and droppings are ignored at any depth."""
    assert SIEVE.ignored(path)
    assert not SIEVE.relevant(path, everything=True)


@pytest.mark.parametrize(
    "path",
    [
        "..data/m.py",
        "..2026_11_23_19_03_55.123456/m.py",
        "venv_tools/m.py",
        ".env.docker",
        "tmp/m.py",
    ],
)
def test_what_only_looks_like_it_is_not_ignored(path):
    """A Kubernetes volume's folders, and names that merely resemble ignored ones, count."""
    assert not SIEVE.ignored(path)
    assert SIEVE.relevant(path, everything=False)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("m.py", True),
        ("a/b/m.py", True),
        ("page.html", True),
        ("a/page.html", True),
        (".env", True),
        ("conf/x.yaml", True),
        ("x.yaml", False),
        ("other/x.yaml", False),
        ("m.pyx", False),
        ("README", False),
    ],
)
def test_sources_and_patterns_are_relevant(path, expected):
    """Python sources count, and what a pattern matches by its name or its relative path."""
    assert SIEVE.relevant(path, everything=False) is expected
    assert SIEVE.relevant(path, everything=True)


def test_without_patterns_nothing_but_sources_matches():
    """No pattern matches nothing, rather than everything."""
    assert not Sieve([], []).relevant("README", everything=False)
    assert not Sieve([], []).ignored("README")


def test_temporary_files_are_told_from_other_ignored_ones():
    """An editor's file is temporary, bytecode isn't, nor is anything in an ignored folder."""
    assert SIEVE.temporary("pkg/m.py~")
    assert SIEVE.temporary(".m.py.a1B2c3")
    assert not SIEVE.temporary("__pycache__/m.pyc")
    assert not SIEVE.temporary(".git/index.tmp")


def test_a_syncs_files_are_told_from_an_editors():
    """Only a program that copies many files announces more of them."""
    assert SIEVE.syncing("pkg/.m.py.a1B2c3")
    assert not SIEVE.syncing("pkg/m.py.tmp")


def test_paths_are_compared_by_components():
    """A folder whose name merely begins alike is elsewhere, and ``..data`` is not ``..``."""
    assert relative("/srv/app/m.py", "/srv/app") == "m.py"
    assert relative("/srv/app", "/srv/app") == "."
    assert relative("/srv/app2/m.py", "/srv/app") is None
    assert relative("/srv", "/srv/app") is None
    assert relative("/srv/app/..data/m.py", "/srv/app") == "..data/m.py"


@settings(deadline=None)
@given(ODD)
def test_ignored_and_relevant_exclude_each_other(path):
    """No path is both ignored and relevant, however odd its name."""
    for everything in (False, True):
        assert not (SIEVE.ignored(path) and SIEVE.relevant(path, everything=everything))


@settings(deadline=None)
@given(ODD)
def test_what_lies_below_is_found_again(path):
    """A relative path leads back to the path it was made of."""
    whole = os.path.normpath("/base/" + path)
    seen = relative(whole, "/base")
    assert seen is None or os.path.normpath(os.path.join("/base", seen)) == whole
