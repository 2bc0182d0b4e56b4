from __future__ import annotations

import codecs

import pytest

from genwsgi.errors import BuildError
from tests.helpers import wait_until
from tests.isolation.sources import Site, call, torn_down

CODING = """
    import codecs, io
    def search(name):
        if name != "gw_marked":
            return None
        def encode(text, errors="strict"):
            return text.encode() + b"VERSION", len(text)
        def decode(data, errors="strict"):
            return bytes(data).decode() + "VERSION", len(data)
        return codecs.CodecInfo(encode, decode, name="gw_marked", streamreader=codecs.StreamReader,
                                streamwriter=codecs.StreamWriter)
    codecs.register(search)
    codecs.register_error("gw_marking", lambda error: ("VERSION", error.end))
    def ask():
        return "a".encode("gw_marked"), b"a".decode("gw_marked"), "é".encode("ascii", "gw_marking")
"""


def test_codecs(site: Site) -> None:
    """Each generation encodes with its own codecs and error handlers, and they go with it."""
    first, second = site.two(shop=CODING)
    for _ in range(2):
        assert call(first, "shop", "ask") == (b"a1", "a1", b"1")
        assert call(second, "shop", "ask") == (b"a2", "a2", b"2")
    assert "a".encode("gw_marked") == b"a2"
    site.pending.close()
    wait_until(lambda: torn_down(first), what="the first generation is torn down")
    assert call(second, "shop", "ask") == (b"a2", "a2", b"2")
    site.write(shop="")
    third = site.serve()
    wait_until(lambda: torn_down(second), what="the second generation is torn down")
    with pytest.raises(LookupError, match="gw_marked"):
        codecs.lookup("gw_marked")
    with pytest.raises(LookupError, match="unknown error handler name 'gw_marking'"):
        third.run("é".encode, "ascii", "gw_marking")


def test_codec_of_another_generation(site: Site) -> None:
    """A codec that only the newer generation has is unknown to the older one."""
    site.write(shop="")
    first = site.serve()
    pending = site.request()
    site.write(shop=CODING.replace("VERSION", "2"))
    second = site.serve()
    assert call(second, "shop", "ask")[0] == b"a2"
    with pytest.raises(LookupError, match="gw_marked"):
        first.run("a".encode, "gw_marked")
    with pytest.raises(LookupError, match="gw_marking"):
        first.run("é".encode, "ascii", "gw_marking")
    pending.close()


def test_unregister(site: Site) -> None:
    """A generation takes back its own search function, and only that."""
    undone = CODING + "    codecs.unregister(search)\n    codecs.unregister(len)\n"
    site.write(shop=CODING.replace("VERSION", "1"))
    first = site.serve()
    pending = site.request()
    site.write(shop=undone.replace("VERSION", "2"))
    second = site.serve()
    with pytest.raises(LookupError, match="gw_marked"):
        call(second, "shop", "ask")
    assert call(first, "shop", "ask")[0] == b"a1"
    pending.close()


def test_error_handler_of_the_process(site: Site) -> None:
    """With the last generation that replaced it an error handler of the process is back."""
    codecs.register_error("gw_process", before := lambda error: ("?", error.end))
    site.write(
        shop="import codecs\ncodecs.register_error('gw_process', lambda error: ('!', error.end))\n"
        "def ask():\n    return 'é'.encode('ascii', 'gw_process')\n"
    )
    assert call(site.serve(), "shop", "ask") == b"!"
    site.close()
    assert codecs.lookup_error("gw_process") is before


def test_failed_build(site: Site) -> None:
    """A failed build leaves no codec and no error handler; what is wrong is refused as ever."""
    site.write(shop=CODING + "    ask()\n    1 / 0\n")
    with pytest.raises(BuildError, match="ZeroDivisionError"):
        site.build()
    with pytest.raises(LookupError):
        "a".encode("gw_marked")
    for wrong in ("register(1)", "register_error('gw', 1)", "register_error(1, len)"):
        site.write(shop=f"import codecs\ncodecs.{wrong}\n")
        with pytest.raises(BuildError, match="TypeError"):
            site.build()
