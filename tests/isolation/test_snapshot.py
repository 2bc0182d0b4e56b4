from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import genwsgi
from tests.isolation.tree import Tree


def test_reading(tree: Tree) -> None:
    """A snapshot has source and bytecode of every file, whatever becomes of the files."""
    held = tree.store.open(tree.take())
    tree.write(__init__="A = 2")
    names: dict[str, int] = {}
    exec(held.code(tree.init), names)
    assert names["A"] == 1
    assert held.source(tree.init) == b"A = 1"
    assert held.code(tree.init).co_filename == tree.init
    assert held.covers(str(tree.root / "shop/new/x.py"))
    assert not held.covers(str(tree.root / "shopping"))
    held.release()


def test_broken_before(tree: Tree) -> None:
    """A file that was broken before is let alone, and raises only where it is imported."""
    tree.write(template="{% broken")
    known = tree.store.open(tree.take())
    tree.write(__init__="A = 2")
    second = tree.store.open(tree.take(known))
    with pytest.raises(SyntaxError) as raised:
        second.code(str(tree.root / "shop/template.py"))
    # Its traceback is of the code, and not of where the bytecode would be.
    assert raised.value.__context__ is None
    second.release()
    known.release()


def test_held_by_another_process(tree: Tree) -> None:
    """A snapshot held by another process is kept; a process that is killed lets go of it."""
    digest = tree.take()
    program = (
        "import sys; from genwsgi.isolation.store import Store\n"
        "held = Store(sys.argv[1]).open(sys.argv[2]); print('held', flush=True); sys.stdin.read()"
    )
    folder = os.path.dirname(os.path.dirname(genwsgi.__file__ or ""))
    with subprocess.Popen(
        [sys.executable, "-c", program, tree.store.path, digest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": folder},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        tree.store.sweep([])
        assert tree.store.digests() == [digest]
        child.send_signal(signal.SIGKILL)
    tree.store.sweep([])
    assert tree.store.digests() == []
