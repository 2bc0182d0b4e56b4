from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest

from genwsgi.errors import BuildError
from genwsgi.isolation import recording
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, call

sqlalchemy = pytest.importorskip("sqlalchemy")

#: The recipe of SQLAlchemy's documentation, a legacy signature, a named one, one that returns.
LISTENING = """
    from sqlalchemy import create_engine, event, text
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import NullPool
    @event.listens_for(Engine, "connect")
    def connected(connection, record):
        said.append(VERSION)
    @event.listens_for(Engine, "begin", named=True)
    def begun(**kw):
        said.append(sorted(kw))
    @event.listens_for(Engine, "before_cursor_execute", retval=True)
    def before(conn, cursor, statement, parameters, context, executemany):
        return statement, parameters
    def ask():
        engine = create_engine("sqlite://", poolclass=NullPool)
        with engine.connect() as connection:
            return connection.execute(text("select VERSION")).scalar()
"""


@pytest.fixture(autouse=True)
def _forget_imports() -> Iterator[None]:
    recorded = dict(recording._edges)
    yield
    recording._edges.clear()
    recording._edges.update(recorded)


def connect() -> None:
    """Connect to a database as code of no generation does."""
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.NullPool)
    with engine.connect():
        pass


def test_each_hears_its_own(site: Site) -> None:
    """A listener of a generation is called for that generation only, and goes with it."""
    first, second = site.two(shop=LISTENING)
    assert call(first, "shop", "ask") == 1
    assert said == [1, ["conn"]]
    said.clear()
    assert call(second, "shop", "ask") == 2
    assert said == [2, ["conn"]]
    said.clear()
    connect()
    assert said == [2]
    table = weakref.ref(first.modules)
    site.pending.close()
    del first
    wait_until(lambda: table() is None, what="the first generation is collected")
    said.clear()
    site.close()
    connect()
    assert said == []


def test_those_for_its_own(site: Site) -> None:
    """A generation with listeners for its own models and sessions is collected."""
    first, _ = site.two(
        shop="""
            from sqlalchemy import event
            from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
            class Base(DeclarativeBase): ...
            Sessions = sessionmaker()
            class Item(Base):
                __tablename__ = "item"
                id: Mapped[int] = mapped_column(primary_key=True)
            @event.listens_for(Base, "init", propagate=True)
            def made(target, args, kwargs):
                target.made_by = VERSION
            @event.listens_for(Sessions, "before_flush")
            def flushing(*args):
                said.append(Item)
            def ask():
                return Item().made_by
        """
    )
    assert call(first, "shop", "ask") == 1
    gone = weakref.ref(first)
    del first
    site.pending.close()
    del site.pending
    wait_until(lambda: gone() is None, what="the first generation is collected")


def test_a_failed_build_leaves_none(site: Site) -> None:
    """The listeners of a build that failed are removed."""
    site.write(shop=LISTENING.replace("VERSION", "1") + "\n    raise ValueError\n")
    with pytest.raises(BuildError):
        site.build()
    connect()
    assert said == []
