from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genwsgi.isolation.closure import close, reachable

NAMES = st.sampled_from("abcdefgh")
EDGES = st.dictionaries(st.tuples(NAMES, NAMES), st.just("x: import y"), max_size=20)


def test_importers_join_transitively() -> None:
    """Whoever imports something in the scope joins it, and so does whoever imports that."""
    edges = {
        ("kit", "shop"): "kit.models: import shop.models",
        ("more", "kit"): "more: import kit",
        ("other", "unrelated"): "other: import unrelated",
    }
    found = close(["shop"], edges, {}, lambda name: True)
    assert found.joins == {
        "kit": "imports shop (kit.models: import shop.models)",
        "more": "imports kit (more: import kit)",
    }
    assert found.stays == {}


def test_what_can_t_join_stays_and_draws_nobody_in() -> None:
    """A package that can't be imported twice stays shared, and so does what imports only that."""
    edges = {("fast", "shop"): "fast: import shop", ("above", "fast"): "above: import fast"}
    found = close(["shop"], edges, {"metrics": "keeps all"}, lambda name: name != "fast")
    assert found.joins == {"metrics": "keeps all"}
    assert found.stays == {"fast": "imports shop (fast: import shop)"}


@given(
    scope=st.sets(NAMES),
    edges=EDGES,
    reasons=st.dictionaries(NAMES, st.just("why")),
    pure=st.sets(NAMES),
)
def test_least_fixed_point(
    scope: set[str], edges: dict[tuple[str, str], str], reasons: dict[str, str], pure: set[str]
) -> None:
    """What joins is closed under imports, can join, and is no more than is needed."""
    found = close(scope, edges, reasons, pure.__contains__)
    inside = scope | found.joins.keys()
    assert not scope & found.joins.keys()
    assert found.joins.keys() <= pure
    assert not found.stays.keys() & (pure | scope)
    for importer, imported in edges:
        if imported in inside and importer not in inside:
            assert importer in found.stays
    for name in reasons:
        assert name in inside or name in found.stays
    expected = set(scope)
    while True:
        more = {a for a, b in edges if b in expected and a in pure} | (reasons.keys() & pure)
        if more <= expected:
            break
        expected |= more
    assert inside == expected


@given(start=st.sets(NAMES), edges=EDGES)
def test_reachable(start: set[str], edges: dict[tuple[str, str], str]) -> None:
    """What is used is what the scope imports, directly or not, and nothing else."""
    found = reachable(start, edges)
    assert start <= found
    assert all(imported in found for importer, imported in edges if importer in found)
    assert all(name in start or any(b == name and a in found for a, b in edges) for name in found)
