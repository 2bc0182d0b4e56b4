"""The coordinator's socket, to which workers and clients connect.

One thread, the coordinator's.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable


class Entrance:
    """The socket at ``path``, once :meth:`open` has made it; only this user can connect.

    :param came: called with the socket when somebody has come.
    :ivar shut: whether nobody is let in, for there is no descriptor for them.
    """

    def __init__(
        self,
        path: str,
        selector: selectors.BaseSelector,
        came: Callable[[socket.socket], None],
    ) -> None:
        self._path = path
        self._selector = selector
        self._came = came
        self._socket: socket.socket | None = None
        self.shut = False

    def open(self) -> None:
        """Make the socket, in place of the one before.

        :raises OSError: it can't be made.
        """
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(self._path)
        os.chmod(self._path, 0o600)
        made.listen(128)
        made.setblocking(False)
        self._selector.register(made, selectors.EVENT_READ, self._came)
        self._socket, self.shut = made, False

    def close(self) -> None:
        """Close the socket; who has come and was not let in is turned away."""
        if self._socket is not None:
            if not self.shut:
                self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def shut_out(self) -> None:
        """Let whoever comes wait outside: the selector would name them again and again."""
        if self._socket is not None and not self.shut:
            self._selector.unregister(self._socket)
            self.shut = True

    def let_in(self) -> None:
        """Let those in who wait."""
        if self._socket is not None and self.shut:
            self._selector.register(self._socket, selectors.EVENT_READ, self._came)
            self.shut = False
