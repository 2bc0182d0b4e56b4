"""Packages that keep registries about application code.

A build finds most of them by looking (:mod:`genwsgi.isolation.audit`).  Here are those where that
would be too late, because what they keep comes with the first request, or where knowing it
beforehand saves a build.  One of them joins the scope if the application loads it.

``--scope`` names further ones for one server.  A package says it of itself, or of others, with an
entry point; its name is the package with the registry, its value says where that is and is never
loaded::

    [project.entry-points."genwsgi.registries"]
    acme_metrics = "acme_metrics.core:REGISTRY"
"""

from __future__ import annotations

import importlib.metadata
import logging

log = logging.getLogger("genwsgi")

#: The group of entry points that declare further ones.
GROUP = "genwsgi.registries"

#: Top-level package -> what it keeps, as in "keeps ...".
REGISTRIES: dict[str, str] = {
    "bottle": "the last request of each thread (bottle.request) and the default applications",
    "celery": "the current application and every shared task (celery._state)",
    "cherrypy": "the last request of each thread (cherrypy.serving), the engine's listeners and "
    "the tree of applications",
    "dash": "the callbacks and pages of all applications (dash._callback, dash._pages)",
    "django": "the applications, their models and settings (django.apps, django.conf)",
    "dramatiq": "the broker with all its actors (dramatiq.broker.global_broker)",
    "marshmallow": "every schema by its name (marshmallow.class_registry)",
    "mongoengine": "every document by its name (mongoengine.base.common) and the connections",
    "prometheus_client": "every metric by its name (prometheus_client.REGISTRY)",
}

_declared: dict[str, str] | None = None


def registries() -> dict[str, str]:
    """Return the packages known to keep registries, and what; the declared ones are read once."""
    global _declared
    if _declared is None:
        _declared = dict(REGISTRIES)
        try:
            for point in importlib.metadata.entry_points(group=GROUP):
                by = point.dist.name if point.dist is not None else "a package"
                _declared.setdefault(point.name, f"{point.value} (says {by})")
        except Exception:
            log.exception("the entry points of group %r can't be read", GROUP)
    return _declared
