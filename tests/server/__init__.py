"""Tests of genwsgi.server."""

from __future__ import annotations
