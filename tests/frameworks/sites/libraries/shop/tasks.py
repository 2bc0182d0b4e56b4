"""Tasks for workers elsewhere."""

from __future__ import annotations

import os

from celery import Celery, Task

VERSION = "v0"

app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": os.environ["SITE_DATA"],
    "data_folder_out": os.environ["SITE_DATA"],
    "control_folder": os.environ["SITE_DATA"],
}


class Marked(Task):
    """A task that tells which code it is of."""

    def mark(self):
        """Which code this is."""
        return f"[task {VERSION}]"


@app.task(base=Marked, bind=True, name="shop.send")
def send(self, text):
    """Send it."""
    return f"{text} [task {VERSION}]"
