from __future__ import annotations

import html
import http.client
import json
import queue
import threading
import weakref
from typing import Any

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.effects.conftest import said
from tests.isolation.sources import Site, call, torn_down

#: What tracers do, in a class, in a module, over something inherited, and with an object.
TRACING = """
    import functools, html, http.client, json, queue
    put = queue.Queue.put
    def traced(self, item, *args, **kwargs):
        said.append(VERSION)
        return put(self, item, *args, **kwargs)
    queue.Queue.put = traced
    escape = html.escape
    def escaped(*args, **kwargs):
        return "VERSION" + escape(*args, **kwargs)
    html.escape = escaped
    size = queue.LifoQueue.qsize
    queue.LifoQueue.qsize = lambda self: size(self) + VERSION
    class Wrapper:
        def __init__(self, function):
            self.function = function
        def __call__(self, *args):
            said.append(("object", VERSION))
            return self.function(*args)
        def __get__(self, instance, owner):
            return functools.partial(self, instance)
    http.client.HTTPConnection.close = Wrapper(http.client.HTTPConnection.close)
    class Encoder(json.JSONEncoder):
        pass
    json.JSONEncoder = Encoder
    def use():
        queue.Queue().put(1)
        return html.escape("&"), queue.LifoQueue().qsize()
    def close():
        http.client.HTTPConnection("x").close()
"""


def places() -> tuple[Any, ...]:
    """What is in the places that the application replaces."""
    return (
        vars(queue.Queue)["put"],
        html.escape,
        vars(queue.LifoQueue).get("qsize"),
        vars(http.client.HTTPConnection)["close"],
        json.JSONEncoder,
    )


def test_each_has_its_own(site: Site) -> None:
    """Each generation calls its own wrapper of a function, once; code of none the original."""
    before = places()
    first, second = site.two(shop=TRACING)
    assert call(first, "shop", "use") == ("1&amp;", 1)
    assert said == [1]
    said.clear()
    assert call(second, "shop", "use") == ("2&amp;", 2)
    call(first, "shop", "close")
    call(second, "shop", "close")
    assert said == [2, ("object", 1), ("object", 2)]
    said.clear()
    queue.Queue[int]().put(1)
    assert (said, html.escape("&")) == ([], "&amp;")
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert call(second, "shop", "use") == ("2&amp;", 2)
    assert said == [2]
    site.close()
    assert places() == before


def test_names_that_are_added(site: Site) -> None:
    """A name that a class did not have is each generation's own, for those too that ask first
    whether it is there; one of a module goes on to the generation that found it there.
    """
    first, second = site.two(
        shop="""
            import html, json, queue
            if not hasattr(queue.Queue, "added"):
                queue.Queue.added = lambda self: VERSION
            if not hasattr(json, "added"):
                json.added = lambda: "found"
            html.added = lambda: VERSION
            def use():
                return queue.Queue().added(), json.added(), html.added()
        """
    )
    assert call(first, "shop", "use") == (1, "found", 2)
    assert call(second, "shop", "use") == (2, "found", 2)
    assert queue.Queue().added() == 2  # type: ignore[attr-defined]
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the generation is torn down")
    assert call(second, "shop", "use") == (2, "found", 2)
    site.write(shop="import queue\nHAS = hasattr(queue.Queue, 'added')\n")
    third = site.serve()
    assert third.run(third.modules.import_module, "shop").HAS is False
    wait_until(lambda: torn_down(second), what="the generation is torn down")
    assert not hasattr(queue.Queue, "added")
    site.close()
    assert not hasattr(json, "added")
    assert not hasattr(html, "added")


def test_a_failed_build_leaves_none(site: Site) -> None:
    """What a failed build has replaced is as it was before, also where that was a wrapper."""
    before = places()
    site.write(shop=TRACING.replace("VERSION", "1"))
    first = site.serve()
    serving = places()
    site.write(shop=TRACING.replace("VERSION", "2") + "\n    raise ValueError\n")
    with pytest.raises(BuildError):
        site.build()
    assert places()[4] is serving[4]
    assert call(first, "shop", "use") == ("1&amp;", 1)
    assert said == [1]
    queue.Queue[int]().put(1)
    assert said == [1]
    site.close()
    assert places() == before


def test_a_class_that_gevent_has_put_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for the classes that gevent puts in the place of the standard library's."""
    patched = type("LifoQueue", (queue.LifoQueue,), {"__module__": "gevent.queue"})
    monkeypatch.setattr(queue, "LifoQueue", patched)
    first, second = site.two(shop=TRACING)
    assert call(first, "shop", "use") == ("1&amp;", 1)
    assert call(second, "shop", "use") == ("2&amp;", 2)
    site.pending.close()
    site.close()
    assert "qsize" not in vars(patched)


def test_none_is_wrapped_by_the_next(site: Site) -> None:
    """However often a function is wrapped anew, no wrapper keeps the generation before it."""
    gone = []
    for version in range(1, 6):
        site.write(shop=TRACING.replace("VERSION", str(version)).replace("json.JSONEncoder = ", ""))
        gone.append(weakref.ref(site.serve().modules))
    wait_until(lambda: not any(ref() for ref in gone[:-1]), what="old generations are collected")
    current = site.live.current
    assert current is not None
    call(current, "shop", "use")
    assert said == [5]


def test_a_wrapper_that_starts_threads(site: Site) -> None:
    """The wrapped start of a thread is for a generation's own threads, not for the server's."""
    first, second = site.two(
        shop="""
        import threading
        start = threading.Thread.start
        def started(self):
            said.append(VERSION)
            start(self)
        threading.Thread.start = started
        def go():
            thread = threading.Thread(target=said.append, args=["thread"])
            thread.start()
            thread.join()
        """
    )
    said.clear()  # until the build had ended, it was for all
    call(first, "shop", "go")
    call(second, "shop", "go")
    thread = threading.Thread(target=said.append, args=["process"])
    thread.start()
    thread.join()
    assert said == [1, "thread", 2, "thread", "process"]
