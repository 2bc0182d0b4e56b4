"""The cases: each measures into plain data, and makes its section of the report from that."""

from __future__ import annotations
