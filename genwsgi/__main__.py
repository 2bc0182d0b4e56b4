"""The ``genwsgi`` command, also ``python -m genwsgi``."""

from __future__ import annotations

from genwsgi.server.application import GenwsgiApplication
from genwsgi.triggers.amqp.hiding import hide_from_process_list


def main() -> None:
    """Serve what the command line says; the exit status is gunicorn's."""
    hide_from_process_list()
    GenwsgiApplication(prog="genwsgi").run()


if __name__ == "__main__":
    main()
