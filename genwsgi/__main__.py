"""The ``genwsgi`` command, also ``python -m genwsgi``."""

from __future__ import annotations

from genwsgi.server.application import GenwsgiApplication


def main() -> None:
    """Serve what the command line says; the exit status is gunicorn's."""
    GenwsgiApplication(prog="genwsgi").run()


if __name__ == "__main__":
    main()
