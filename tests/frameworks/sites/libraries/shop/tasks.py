"""Tasks for workers elsewhere."""

from __future__ import annotations

import os
import tempfile
import threading

from celery import Celery, Task

VERSION = "v0"

app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": os.environ["SITE_DATA"],
    "data_folder_out": os.environ["SITE_DATA"],
    # Who declares a queue may read half of the file that another one writes just then.
    "control_folder": tempfile.mkdtemp(dir=os.environ["SITE_DATA"]),
}

#: Held while something is sent, for the same reason.
sending = threading.Lock()


class Marked(Task):
    """A task that tells which code it is of."""

    def mark(self):
        """Which code this is."""
        return f"[task {VERSION}]"


@app.task(base=Marked, bind=True, name="shop.send")
def send(self, text):
    """Send it."""
    return f"{text} [task {VERSION}]"
