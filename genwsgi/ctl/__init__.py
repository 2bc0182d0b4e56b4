"""The ``genwsgictl`` command."""
