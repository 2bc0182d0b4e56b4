"""The scope that finds itself, with the real libraries that need it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genwsgi.errors import BuildError, ScopeError
from genwsgi.isolation import duplicates, known, recording
from tests.isolation.sources import Site, write


@pytest.fixture(autouse=True)
def libraries(site: Site) -> Iterator[None]:
    """What a test loads of the libraries is unloaded after it, and what it recorded forgotten."""
    site.path += tuple(sys.path)
    before = set(sys.modules)
    recorded = dict(recording._edges)
    yield
    site.close()
    tops = {"prometheus_client", "marshmallow", "apispec", "flask", "blinker", "dramatiq"}
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in tops:
            del sys.modules[name]
    recording._edges.clear()
    recording._edges.update(recorded)


def deploy_twice(site: Site, code: str) -> dict[str, str]:
    """Serve ``code`` twice; return what joined the scope."""
    site.write(shop="import shop.models\n", shop__models=code)
    joined = site.grow()
    with open(site.root / "shop/models.py", "a") as file:
        file.write("# changed\n")
    assert site.grow() == {}
    return joined


def test_flask_is_shared(site: Site) -> None:
    """An application that only uses Flask shares it, with all that it consists of."""
    code = "import flask\napp = flask.Flask('shop')\napp.route('/')(lambda: 'x')\n"
    assert deploy_twice(site, code) == {}


@pytest.mark.parametrize("weak", ["True", "False"])
def test_signals_of_flask(site: Site, weak: str) -> None:
    """A receiver of a signal would hear of every generation's requests: so Flask joins."""
    joined = deploy_twice(
        site,
        "import flask\napp = flask.Flask('shop')\ndef heard(sender, **_): ...\n"
        f"flask.request_started.connect(heard, weak={weak})\n",
    )
    assert joined["flask"] == "holds shop.models.heard (flask.signals.request_started)"
    assert "werkzeug" not in joined


def test_named_signals(site: Site) -> None:
    """A named signal is blinker's own: then that joins, and all that imports it."""
    joined = deploy_twice(
        site,
        "import blinker, flask\ndef heard(sender): ...\nblinker.signal('sold').connect(heard)\n",
    )
    assert joined["blinker"].startswith("holds shop.models.heard (blinker.base.")
    # Recorded, or seen in its globals where something has loaded it before.
    assert joined["flask"].startswith("imports blinker (flask.signals")


@pytest.mark.parametrize(
    ("package", "code"),
    {
        "prometheus_client": "import prometheus_client as p\nSOLD = p.Counter('sold', 'so many')\n",
        "marshmallow": "import marshmallow\nclass Item(marshmallow.Schema): ...\n",
        "dramatiq": "import dramatiq\nfrom dramatiq.brokers.stub import StubBroker\n"
        "dramatiq.set_broker(StubBroker())\n@dramatiq.actor\ndef send(): ...\n",
    }.items(),
)
def test_known_registries(site: Site, package: str, code: str) -> None:
    """What keeps a registry of application code joins, and the code is built again and again."""
    pytest.importorskip(package)
    assert deploy_twice(site, code)[package] == f"keeps {known.REGISTRIES[package]}"


@pytest.mark.parametrize(
    ("package", "code"),
    {
        "prometheus_client": "import prometheus_client as p\nSOLD = p.Counter('sold', 'so many')\n",
        "dramatiq": "import dramatiq\nfrom dramatiq.brokers.stub import StubBroker\n"
        "if not isinstance(dramatiq.broker.global_broker, StubBroker):\n"
        "    dramatiq.set_broker(StubBroker())\n@dramatiq.actor\ndef send(): ...\n",
        "flask": "import flask\nfrom carts import cart\ncart.register_blueprint(\n"
        "    flask.Blueprint('shop', 'shop'))\n",
        "apispec": "import apispec\nfrom carts import spec\n"
        "spec.components.schema('Item', {'x': 1})\n",
    }.items(),
)
def test_duplicate_registration(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, code: str
) -> None:
    """A build that fails over an earlier generation's registration is right with a larger scope."""
    pytest.importorskip(package)
    installed = tmp_path / "site-packages"
    write(
        installed,
        {
            "carts.py": "import flask\ncart = flask.Blueprint('cart', 'cart')\n"
            "class Once(flask.Flask): ...\ncart = Once('cart')\ntry:\n    import apispec\n"
            "    spec = apispec.APISpec('x', '1', '3.0.0')\nexcept ImportError:\n    pass\n"
        },
    )
    monkeypatch.syspath_prepend(str(installed))
    site.path += (str(installed),)
    monkeypatch.setattr(known, "_declared", {})
    monkeypatch.setattr("genwsgi.isolation.growth.audit", lambda *_: {})
    site.write(shop="import shop.models\n", shop__models=code)
    site.serve()
    with pytest.raises(BuildError) as caught:
        site.build()
    assert "restart" not in caught.value.reason
    with pytest.raises(ScopeError) as grown:
        site.build(grow=True)
    assert grown.value.traceback.splitlines()[-1].startswith(caught.value.reason)
    joined = site.grow()
    assert package in joined
    assert "keeps what an earlier generation registered: " in joined[package]
    sys.modules.pop("carts", None)


def test_duplicate_that_can_t_be_helped(site: Site) -> None:
    """Where the package has to be shared, the error says so, and what to do."""
    site.share = ("prometheus_client",)
    code = "import prometheus_client as p\nSOLD = p.Counter('again', 'so many')\n"
    site.write(shop="import shop.models\n", shop__models=code)
    site.grow()
    with pytest.raises(BuildError, match="prometheus_client keeps what an earlier") as caught:
        site.build(grow=True)
    assert "but --share names it: restart to serve this code" in caught.value.reason
    importlib.import_module("prometheus_client").REGISTRY._names_to_collectors.clear()


def test_first_generation_is_told_of_its_own_mistake(site: Site) -> None:
    """Without an earlier generation a duplicate is the application's own mistake."""
    code = "import prometheus_client as p\np.Counter('mine', 'x')\np.Counter('mine', 'x')\n"
    site.write(shop="import shop.models\n", shop__models=code)
    with pytest.raises(BuildError, match="Duplicated timeseries"):
        site.build(grow=True)


# Said before the error that is looked for.
@pytest.mark.filterwarnings("ignore:This declarative base already contains a class")
def test_sqlalchemy_models_of_a_shared_base(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy is compiled; a shared package that has made a base with it is imported afresh."""
    pytest.importorskip("sqlalchemy")
    installed = tmp_path / "site-packages"
    write(
        installed,
        {"based.py": "from sqlalchemy import orm\nclass Base(orm.DeclarativeBase): ...\n"},
    )
    monkeypatch.syspath_prepend(str(installed))
    site.path += (str(installed),)
    code = """
        import based, sqlalchemy as sa
        class Item(based.Base):
            __tablename__ = "item"
            id = sa.Column(sa.Integer, primary_key=True)
    """
    site.write(shop="import shop.models\n", shop__models=code)
    joined = site.grow()
    site.write(shop__models=code + "        # changed\n")
    joined |= site.grow()
    assert list(joined) == ["based"]
    sys.modules.pop("based", None)


def test_patterns_are_what_the_libraries_say() -> None:
    """Each message of the table is taken for a duplicate, and other errors are not."""
    for text in (
        "Duplicated timeseries in CollectorRegistry: {'a'}",
        "Table 'item' is already defined for this MetaData instance.  Specify ...",
        "Conflicting 'item' models in application 'shop': <class 'a'> and <class 'b'>.",
        "An actor named 'send' is already registered.",
        "The name 'shop' is already registered for a different blueprint.",
        "Class '<class 'a'>' already has a primary mapper defined.",
        'Router with basename "x" is already registered.',
    ):
        assert duplicates.is_duplicate(RuntimeError(text)), text
        outer = ImportError("no")
        outer.__cause__ = ValueError(text)
        assert duplicates.told(outer).startswith(text[:10])
    for text in ("no such table: item", "division by zero", "cart is empty", "already done"):
        assert not duplicates.is_duplicate(RuntimeError(text)), text
