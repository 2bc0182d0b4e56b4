from __future__ import annotations

import logging

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, call

LOGGING = """
    import logging
    class Ear(logging.Handler):
        def emit(self, record):
            said.append(("VERSION", record.getMessage()))
    log = logging.getLogger("genwsgi_tests_shop")
    log.setLevel("INFO")
    if not log.handlers:
        log.addHandler(Ear())
    def ask(text):
        log.info(text)
"""


def test_no_line_twice(site: Site) -> None:
    """With two generations alive, and after one retired, each record is written once."""
    first, second = site.two(shop=LOGGING)
    logger = logging.getLogger("genwsgi_tests_shop")
    call(first, "shop", "ask", "one")
    call(second, "shop", "ask", "two")
    logger.info("nobody")
    assert said == [("1", "one"), ("2", "two"), ("2", "nobody")]
    said.clear()
    site.pending.close()
    wait_until(lambda: first.modules.closed, what="the first generation is torn down")
    call(second, "shop", "ask", "three")
    assert said == [("2", "three")]
    assert logger.handlers == []


def test_configuring_disables_no_logger_of_others(site: Site) -> None:
    """``dictConfig`` with its defaults, in a build good or bad, leaves the others' loggers on."""
    configure = """
        import logging.config
        logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
    """
    log = logging.getLogger("genwsgi_tests_shop")
    site.write(shop=LOGGING)
    site.serve()
    level = logging.root.level
    site.write(shop=configure + "    1 / 0\n")
    with pytest.raises(BuildError):
        site.build()
    assert (log.disabled, log.disabled) == (False, False)
    assert logging.root.level == level
    site.write(shop=configure)
    site.serve()
    assert (log.disabled, log.disabled) == (False, False)
    logging.root.setLevel(level)


def test_handlers_are_a_list_of_its_own(site: Site) -> None:
    """Whatever a generation does to a logger's list, others and the process don't notice."""
    logger = logging.getLogger("genwsgi_tests_shop")
    mine = logging.NullHandler()
    logger.addHandler(mine)
    try:
        first, second = site.two(
            shop="import logging\nlog = logging.getLogger('genwsgi_tests_shop')\n"
            "seen = list(log.handlers)\nif VERSION == 1:\n    log.handlers.clear()\n"
            "else:\n    log.handlers = [logging.NullHandler()]\n"
            "def ask():\n    return list(log.handlers)\n"
        )
        for generation in (first, second):
            assert generation.modules.modules["shop"].seen == [mine]
        assert call(first, "shop", "ask") == []
        assert len(call(second, "shop", "ask")) == 1
        assert logger.handlers == [mine]
    finally:
        logger.removeHandler(mine)


def test_list_follows_the_process(site: Site) -> None:
    """A handler that the process adds later is heard by generations that have none of their own."""
    site.write(shop="import logging\ndef ask():\n    return logging.getLogger('gw.x').handlers\n")
    generation = site.serve()
    assert call(generation, "shop", "ask") == []
    later = logging.NullHandler()
    logging.getLogger("gw.x").addHandler(later)
    assert call(generation, "shop", "ask") == [later]
    logging.getLogger("gw.x").removeHandler(later)


def test_handlers_are_closed(site: Site) -> None:
    """A retired generation's handlers are closed, and one that raises then stops nothing."""
    first, _ = site.two(
        shop="import logging\nclass Bad(logging.NullHandler):\n    def close(self):\n"
        "        super().close()\n        said.append('closed')\n        raise OSError\n"
        "logging.getLogger('gw.y').addHandler(Bad())\n"
    )
    site.pending.close()
    wait_until(lambda: said, what="the handler is closed")
    wait_until(lambda: first.modules.closed, what="the generation is torn down")
