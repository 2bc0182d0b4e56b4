"""Which folders a message may name: see :mod:`genwsgi.triggers.trust`."""

from __future__ import annotations

from collections.abc import Iterable

from genwsgi.errors import OrderError
from genwsgi.triggers.amqp.message import Refusal
from genwsgi.triggers.trust import check_folder


def check_path(path: str, roots: Iterable[str], *, deep: bool = True) -> str:
    """Return the real path of the folder ``path``, which a message may have code imported from.

    :param roots: the release roots; it lies below one of them.
    :param deep: it may lie there at any depth, or else only right in one.
    :raises Refusal: it is no folder, lies elsewhere, or others may write in it.
    """
    try:
        return check_folder(path, roots, what="physical_path", deep=deep)
    except OrderError as error:
        raise Refusal(str(error)) from error
