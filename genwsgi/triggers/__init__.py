"""Whatever asks for a deploy: a trigger calls ``order(...)`` and knows nothing of what follows."""

from __future__ import annotations
