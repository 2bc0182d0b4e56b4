"""The connections of a coordinator: messages in and out of sockets that may block, break or lie.

One thread, the coordinator's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from genwsgi.deploy import framing
from genwsgi.deploy.problems import NO_DESCRIPTORS
from genwsgi.deploy.rundir import peer_pid, peer_uid
from genwsgi.errors import ProtocolError

#: Bytes that a peer may leave unread before it is taken for gone.
BACKLOG = 4 * framing.MAX_FRAME


@dataclass
class Peer:
    """One connection, of an agent or of a client.

    :ivar process: a descriptor that tells of the end of the worker's process, if there is one.
    """

    number: int
    socket: socket.socket
    decoder: framing.Decoder = field(default_factory=framing.Decoder)
    outgoing: bytearray = field(default_factory=bytearray)
    worker: bool = False
    process: int | None = None


class Peers:
    """All open connections.

    :param hear: called with each message, and whom it is from.
    :param lost: called with a peer whose connection is closed, by whichever side.
    :param failed: called when no connection can be taken.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        log: logging.Logger,
        hear: Callable[[Peer, framing.Message], None],
        lost: Callable[[Peer], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self._selector = selector
        self._log = log
        self._hear = hear
        self._lost = lost
        self._failed = failed
        self._open: dict[int, Peer] = {}
        self._count = 0

    def get(self, number: int) -> Peer | None:
        """The open connection ``number``."""
        return self._open.get(number)

    def close(self) -> None:
        """Close all, without a word to anybody: the coordinator ends."""
        for peer in self._open.values():
            peer.socket.close()
            if peer.process is not None:
                os.close(peer.process)

    def accept(self, listener: socket.socket) -> None:
        """Take the next connection, if its user may give orders here."""
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno in NO_DESCRIPTORS:
                self._failed(error)
            return
        uid = peer_uid(connection)
        if uid not in {0, os.geteuid()}:
            self._log.warning("a connection of user %d was refused", uid)
            connection.close()
            return
        connection.setblocking(False)
        self._count += 1
        peer = Peer(self._count, connection)
        self._open[peer.number] = peer
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def watch(self, peer: Peer) -> None:
        """See to it that the end of the worker's process is the end of the connection.

        A process that it has forked holds the connection as well, and may live on.
        """
        peer.worker = True
        if peer.process is not None or not hasattr(os, "pidfd_open"):
            return
        try:
            peer.process = os.pidfd_open(peer_pid(peer.socket))
        except ProcessLookupError:
            self._read_out(peer)
        except OSError:
            return  # no descriptor is left, or the system has none of the kind
        else:
            self._selector.register(peer.process, selectors.EVENT_READ, partial(self._ended, peer))

    def serve(self, peer: Peer, events: int) -> None:
        """Write and read what can be: ``events`` is the selector's word for ``peer``."""
        if peer.number not in self._open:
            return  # lost over what was heard from another a moment ago
        if events & selectors.EVENT_WRITE:
            self._flush(peer)
        if not events & selectors.EVENT_READ:
            return
        try:
            data = peer.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.lose(peer)
            return
        try:
            messages = peer.decoder.feed(data)
        except ProtocolError as error:
            self._log.error("a peer can't be understood and is cut off: %s", error)
            self.lose(peer)
            return
        for message in messages:
            if peer.number in self._open:
                self._hear(peer, message)

    def lose(self, peer: Peer) -> None:
        """Hang up, if that was not done before."""
        if self._open.pop(peer.number, None) is None:
            return
        self._selector.unregister(peer.socket)
        peer.socket.close()
        self._look_away(peer)
        self._lost(peer)

    def send(self, peer: Peer, message: framing.Message) -> None:
        """Send as much as goes now, and the rest when it goes; or hang up, if it never will."""
        try:
            peer.outgoing += framing.encode(message)
        except ProtocolError as error:
            self._log.error("a peer can't be answered and is cut off: %s", error)
            self.lose(peer)
            return
        if len(peer.outgoing) > BACKLOG:
            self.lose(peer)
        else:
            self._flush(peer)

    def _ended(self, peer: Peer, _process: int) -> None:
        if peer.process is not None:  # it was not lost a moment ago
            self._look_away(peer)
            self._read_out(peer)

    def _look_away(self, peer: Peer) -> None:
        if peer.process is not None:
            self._selector.unregister(peer.process)
            os.close(peer.process)
            peer.process = None

    def _read_out(self, peer: Peer) -> None:
        """Let nothing more come of a process that is gone: what has come is read, then the end."""
        with contextlib.suppress(OSError):
            peer.socket.shutdown(socket.SHUT_RD)

    def _flush(self, peer: Peer) -> None:
        try:
            sent = peer.socket.send(peer.outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            # It is gone; what it said before is still to be read, and then the end.
            sent = len(peer.outgoing)
        del peer.outgoing[:sent]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.outgoing else 0)
        self._selector.modify(peer.socket, wanted, peer)
