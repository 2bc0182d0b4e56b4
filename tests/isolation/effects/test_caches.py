from __future__ import annotations

import ctypes
import fnmatch
import urllib.parse
import weakref

import pytest

from tests.helpers import wait_until
from tests.isolation.sources import Site, torn_down

#: A method leads to its module, and that to all of its generation.
METHOD = "\n    def of_it(self): ...\n"
TEXT = f"class Text(str):{METHOD}"
USES = {
    "urlsplit": "import urllib.parse\nurllib.parse.urlsplit(Text('http://localhost/a?b'))",
    "fnmatch": "import fnmatch\nfnmatch.fnmatchcase('a', Text('a*'))",
    "re.compile": "import re\nre.compile(Text('a+'))",
    "re.sub": "import re\nre.sub('(a)', Text(r'\\1'), 'a')",
    "re.sub of its pattern": "import re\nre.sub(re.compile(Text('(b)')), r'\\1', 'b')",
    "strptime": "import time\ntime.strptime('2020', Text('%Y'))",
    "POINTER": f"import ctypes\nclass S(ctypes.Structure):{METHOD}ctypes.POINTER(S)",
    "CFUNCTYPE": f"import ctypes\nclass S(ctypes.Structure):{METHOD}ctypes.CFUNCTYPE(None, S)",
    "reducer": (
        "from multiprocessing.reduction import ForkingPickler as pickler\n"
        "pickler.register(Text, lambda text: (str, ()))"
    ),
    "ipaddress": (
        f"import ipaddress\nclass Host(ipaddress.IPv4Address):{METHOD}Host('127.0.0.1').is_private"
    ),
    "getattr_static": "import inspect\ninspect.getattr_static(Text('a'), 'upper')",
    "archives": (
        "import shutil\n"
        "if 'odd' not in dict(shutil.get_archive_formats()):\n"
        "    shutil.register_archive_format('odd', lambda *_: '')"
    ),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_no_cache_keeps_a_generation(site: Site, use: str) -> None:
    """What the standard library keeps of a generation's values and classes goes with it."""
    site.write(shop=TEXT + use)
    table = weakref.ref(site.serve().modules)
    site.write(shop="")
    site.serve()
    wait_until(lambda: table() is None, what="the generation is collected")


def test_what_is_of_nobody_stays(site: Site) -> None:
    """Of the caches only those are emptied that have something of the generation that ends."""
    urllib.parse.urlsplit("http://localhost/mine")
    fnmatch.fnmatchcase("mine", "mine*")
    pointer = ctypes.POINTER(ctypes.c_int)
    site.write(shop=TEXT + USES["urlsplit"] + "\n" + USES["POINTER"])
    first = site.serve()
    site.write(shop="")
    site.serve()
    wait_until(lambda: torn_down(first), what="the generation is torn down")
    kept = fnmatch._compile_pattern.cache_info().hits  # type: ignore[attr-defined]
    fnmatch.fnmatchcase("mine", "mine*")
    assert fnmatch._compile_pattern.cache_info().hits == kept + 1  # type: ignore[attr-defined]
    assert ctypes.POINTER(ctypes.c_int) is pointer
