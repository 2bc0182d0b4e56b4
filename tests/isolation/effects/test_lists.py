from __future__ import annotations

import sys

from tests.helpers import wait_until
from tests.isolation.sources import Site


def test_lists_at_retirement(site: Site) -> None:
    """A retired generation's import hooks go; of a folder on the path one entry stays."""
    hooks, path = list(sys.meta_path), list(sys.path)
    try:
        for _ in range(3):
            site.write(
                shop="import sys\nclass Hook:\n    def find_spec(*_):\n        return None\n"
                "sys.meta_path.append(Hook())\nsys.path.append('/nowhere/' + 'else')\n"
            )
            generation = site.serve()
        wait_until(lambda: len(sys.meta_path) == len(hooks) + 1, what="old hooks are gone")
        assert sys.path.count("/nowhere/else") == 1
        assert generation.modules.modules["shop"].Hook is type(sys.meta_path[-1])
    finally:
        sys.path[:] = path
