"""Tests of genwsgi.server.explain."""

from __future__ import annotations

from genwsgi.isolation.growth import Verdict
from genwsgi.server.explain import table


def test_the_table_says_of_each_package_where_it_is_and_why() -> None:
    """What is in the scope comes first, each by name; the standard library is one line."""
    verdicts = [
        Verdict("decimal", False, "standard library"),
        Verdict("numpy", False, "compiled: numpy/_core/x.so"),
        Verdict("shop", True, "the application's own"),
        Verdict("asyncio", False, "standard library"),
        Verdict("Blinker", False, "imports nothing of the scope"),
        Verdict("kit", True, "imports shop (kit: import shop)"),
    ]
    assert table(verdicts) == (
        "PACKAGE             SCOPE  WHY\n"
        "kit                 in     imports shop (kit: import shop)\n"
        "shop                in     the application's own\n"
        "Blinker             out    imports nothing of the scope\n"
        "numpy               out    compiled: numpy/_core/x.so\n"
        "(standard library)  out    always shared: asyncio, decimal\n"
    )


def test_an_application_without_packages_has_a_short_table() -> None:
    """Names that are shorter than the head are as wide as that."""
    assert table([Verdict("a", True, "the application's own")]) == (
        "PACKAGE  SCOPE  WHY\na        in     the application's own\n"
    )
