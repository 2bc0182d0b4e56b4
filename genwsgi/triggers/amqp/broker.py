"""What a listener and a sender do alike at the broker: connect, and see to it that all is there.

Called by the thread that has the connection.
"""

from __future__ import annotations

from typing import Any, Final

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from genwsgi.triggers.amqp.settings import Settings

#: The routing key that queues are bound with: a fanout exchange looks at none, and publishers of
#: orders give none.
ANY: Final = ""


def connect(settings: Settings) -> Any:
    """Return a connection to the broker.

    :raises AMQPError, OSError: there is none to be had.
    """
    parameters = settings.parameters()
    try:
        return pika.BlockingConnection(parameters)
    except AMQPConnectorStackTimeout as error:
        # The one that pika does not count among its own.
        waited = f"it has said nothing for {parameters.stack_timeout:g} s"
        raise AMQPConnectionError(waited) from error


def declare_exchange(connection: Any, exchange: str) -> str:
    """See to it that the exchange is there: as it is, or else durable and a fanout.

    :returns: what the broker says if it is no fanout; else empty.
    """
    channel = connection.channel()
    try:
        channel.exchange_declare(exchange, "fanout", passive=True)
    except ChannelClosedByBroker:
        channel = connection.channel()
        channel.exchange_declare(exchange, "fanout", durable=True)
    else:
        # A passive one tells nothing of the type; this one does, before anything else.
        try:
            channel.exchange_declare(exchange, "fanout", durable=True)
        except ChannelClosedByBroker as error:
            text = why(error)
            return text if "'type'" in text else ""
    channel.close()
    return ""


def declare_latest(channel: Any, settings: Settings) -> None:
    """Declare the queue that keeps the latest order, and bind it to the exchange of orders."""
    # Not the virtual host's default type: a quorum queue drops a message that was put back often,
    # and each host that looks puts it back.
    arguments = {"x-max-length": 1, "x-overflow": "drop-head", "x-queue-type": "classic"}
    channel.queue_declare(settings.latest, durable=True, arguments=arguments)
    channel.queue_bind(settings.latest, settings.exchange, ANY)


def why(error: BaseException) -> str:
    """Return the reason in one line: pika's own errors carry another one, or none."""
    inner: Any = error
    while isinstance(cause := _cause(inner), BaseException):
        inner = cause
    text = " ".join(str(inner).split()) or type(inner).__name__
    return text if len(text) <= 300 else text[:300] + "…"


def _cause(error: Any) -> object:
    several = getattr(error, "exceptions", None) or getattr(error, "args", None)
    return getattr(error, "exception", None) or (several[-1] if several else None)
