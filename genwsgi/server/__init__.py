"""The command: genwsgi on gunicorn."""
