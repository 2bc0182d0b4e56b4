"""nginx in front, with connections that it keeps: a deploy closes none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.nginx import CLIENTS, run


@pytest.mark.parametrize(("worker_class", "deploys"), [("gthread", 10), ("gevent", 5)])
def test_a_deploy_closes_no_connection_of_nginx(
    tmp_path: Path, worker_class: str, deploys: int
) -> None:
    """Behind the configuration of the document no deploy costs a connection, or wrk an error."""
    found = run(tmp_path, deploys, 0.2, f"--worker-class={worker_class}")
    assert found.errors == []
    assert (found.closed, found.opened) == (0, 0)
    assert found.kept == CLIENTS
    assert found.requests > 100
