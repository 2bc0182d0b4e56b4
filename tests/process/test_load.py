"""Deploys under load: no client is to notice them.

``python -m benchmarks.deploys`` prints the figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.deploys import deploy_series


@pytest.mark.parametrize(
    ("worker_class", "deploys"), [("gthread", 50), ("gevent", 20), ("sync", 20)]
)
def test_deploys_half_a_second_apart(tmp_path: Path, worker_class: str, deploys: int) -> None:
    """32 clients lose no request and no connection, see every version, and the workers agree."""
    series = deploy_series(
        tmp_path, None, f"--worker-class={worker_class}", deploys=deploys, every=0.5, clients=32
    )
    tally = series.tally
    assert (tally.failed, tally.refused) == (0, 0), tally.offences
    assert set(tally.versions) == {f"v{number}" for number in range(deploys + 1)}
    (release,) = set(series.releases.values())
    assert len(series.releases) == 2
    assert release.startswith(f"{deploys + 1}-")
    if worker_class == "sync":
        # It closes each connection after its response, as that says: nothing else may close one.
        assert set(tally.reasons) == {"announced close"}
    else:
        assert tally.dropped == 0, tally.offences
