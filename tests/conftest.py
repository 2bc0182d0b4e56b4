"""What pytest needs to know before any test."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

from hypothesis import settings

from tests.gates import shut
from tests.rabbitmq import broker, the_broker

__all__ = ["broker", "shut", "the_broker"]

# Machines that run tests are busy: how long an example takes says nothing about the code.
settings.register_profile("genwsgi", deadline=None)
settings.load_profile("genwsgi")

# A shell that starts the tests in the background has this one ignored, and what they start then
# ignores it as well.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What servers remember of their deploys is no business of the user's who runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="genwsgi-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
