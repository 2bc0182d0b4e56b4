"""How many file descriptors this process may still open."""

from __future__ import annotations

import os
import resource
from typing import Final

#: With fewer left than this, what needs several at once begins to fail.
FEW: Final = 16

#: With this many left again it works, and will for a while.
ENOUGH: Final = 32


def has_spare(count: int) -> bool:
    """Whether ``count`` more descriptors can be opened.  From any thread.

    They are tried, because those in use can't be counted without opening one, and it is quick.
    """
    opened: list[int] = []
    try:
        opened.append(os.open(os.devnull, os.O_RDONLY))
        while len(opened) < count:
            opened.append(os.dup(opened[0]))
    except OSError:
        return False
    finally:
        for one in opened:
            os.close(one)
    return True


def shortage(who: str) -> str:
    """Say that ``who`` has few descriptors left, and what to do."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"{who} has fewer than {FEW} of its {most} file descriptors left: builds fail and new "
        "connections wait until some are closed; raise `ulimit -n` (LimitNOFILE= of a systemd unit)"
    )
