"""Orders by RabbitMQ messages.

``message``, ``signing``, ``paths`` and ``memory`` decide what is believed and know no broker;
``listener`` is the connection; ``trigger`` is what a server's coordinator makes of it.
"""
