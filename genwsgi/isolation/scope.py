"""The scope: which top-level packages every generation imports afresh, and why.

In it are the application's own packages (all that can be imported from the folders its code lives
in) and those that the operator names.  Never in it: the standard library, and what genwsgi itself
runs on, because the server holds their objects while generations come and go.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from genwsgi.errors import OptionError, TargetError

#: Shared whatever anybody says: the server's own objects come from these.
ALWAYS_SHARED = frozenset({"genwsgi", "gunicorn", "watchdog", "pika", "gevent", "greenlet"})

#: Folder names that hold no code of the application, at any depth.
NOT_SOURCE = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})

#: How many folders are looked at for code below one that has no ``__init__.py``.
MOST_FOLDERS = 1000

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class Addition:
    """What a build found to belong in the scope, though nobody had named it.

    :ivar name: a top-level package; empty for a folder.
    :ivar reason: why, in a few words.
    :ivar folder: a folder that the application itself puts on ``sys.path``, as the operator would
        have written it: below a root that is a symlink, it is another folder for each release.
    """

    name: str
    reason: str
    folder: str = ""


@dataclass(frozen=True)
class ScopeRules:
    """What decides the scope; the scope itself is looked up anew for every snapshot.

    :ivar module: the target's module, like ``"shop.wsgi"``.
    :ivar path: the folders that imports search, in order (``sys.path`` of the server).
    :ivar own: those of them that hold the application's code (``--chdir``, ``--pythonpath``); the
        folder that the target is found in is always one of them.
    :ivar scope: further top-level packages to import afresh.
    :ivar share: packages never to import afresh.
    :ivar first: folders that hold the application's code and come before all others; ``path``
        begins with them.
    :ivar additions: what builds have found to belong in the scope.
    """

    module: str
    path: tuple[str, ...]
    own: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    share: tuple[str, ...] = ()
    additions: tuple[Addition, ...] = ()
    first: tuple[str, ...] = ()

    @property
    def top(self) -> str:
        """The target's top-level package."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Package:
    """Where one top-level name of the scope is found.

    :ivar file: the module's file, or ``None`` for a package.
    :ivar folders: the package's folders (several only for a namespace package).
    :ivar reason: why it is in the scope.
    :ivar installed: whether it lies where packages of others are installed: changes of it are not
        watched for.
    """

    name: str
    file: str | None
    folders: tuple[str, ...]
    reason: str
    installed: bool = False


@dataclass(frozen=True)
class Scope:
    """The packages of the scope by name, and the folders they were looked for in.

    :ivar roots: the folders as the operator wrote them; they may be or contain symlinks.
    :ivar additions: what of it builds have found.
    :ivar share: packages that are never to be in it.
    :ivar left_out: what is the application's own and yet shared, and why.
    """

    packages: dict[str, Package] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    additions: tuple[Addition, ...] = ()
    share: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def watched(self) -> tuple[str, ...]:
        """The folders and files whose changes concern the application."""
        inside = tuple(os.path.realpath(root) for root in self.roots)
        places = list(self.roots)
        for package in self.packages.values():
            for place in () if package.installed else (package.file, *package.folders):
                if place and not any(_below(place, root) for root in inside):
                    places.append(place)
        return tuple(places)


def find_scope(rules: ScopeRules) -> Scope:
    """Look up the scope on disk as it is now.  Symlinked folders are resolved once, here.

    :raises TargetError: the target's package is not on the path.
    :raises OptionError: a package that is named as one of the scope is not.
    """
    packages: dict[str, Package] = {}
    shared = {*ALWAYS_SHARED, *sys.stdlib_module_names, "__main__", *rules.share}
    home = _home_of(rules)
    folders = [addition.folder for addition in rules.additions if addition.folder]
    # The application has them on its path: the parts of a namespace package are looked for there.
    rules = replace(rules, path=(*rules.path, *folders))
    roots = list(dict.fromkeys([*rules.first, *([home] if home else []), *rules.own, *folders]))
    left_out: dict[str, str] = {}
    for root in roots:
        for package in _own_packages(os.path.realpath(root), rules, left_out):
            name = package.name
            if name not in shared:
                packages.setdefault(name, package)
            elif name in sys.stdlib_module_names and name not in rules.share:
                left_out[name] = "it has the name of a module of the standard library: rename it"
    for name in (rules.top, *rules.scope):
        if name in packages:
            continue
        if name in shared:
            if name == rules.top:
                raise TargetError(
                    rules.module,
                    f"the package {name!r} is shared by all generations and can't be the target",
                )
            continue
        found = _find(name, rules.path)
        if found is None:
            where = f"in {', '.join(rules.path) or 'an empty path'}; see --chdir and --pythonpath"
            if name == rules.top:
                raise TargetError(rules.module, f"no module named {name!r} {where}")
            raise OptionError(f"no module named {name!r}, which --scope names, {where}")
        packages[name] = found
    for addition in rules.additions:
        if addition.name and addition.name not in packages and addition.name not in shared:
            found = _find(addition.name, rules.path)
            # What was installed when it was found may be uninstalled by now.
            if found is not None:
                place = os.path.dirname(found.file or found.folders[0])
                packages[addition.name] = replace(
                    found, reason=addition.reason, installed=is_installed(place)
                )
    return Scope(packages, tuple(roots), rules.additions, rules.share, left_out)


def _home_of(rules: ScopeRules) -> str | None:
    """Return the folder on the path that the target's package is in, if that is a source folder."""
    for entry in rules.path:
        if _package_in(entry, rules.top, "", namespaces=True) is not None:
            return None if is_installed(entry) else entry
    return None


def is_installed(folder: str) -> bool:
    """Whether packages of others are installed in ``folder``, so that not all in it is our own."""
    resolved = os.path.realpath(folder)
    known = {os.path.realpath(path) for path in sysconfig.get_paths().values()}
    parts = resolved.split(os.sep)
    return resolved in known or "site-packages" in parts or "dist-packages" in parts


def _own_packages(root: str, rules: ScopeRules, left_out: dict[str, str]) -> Iterable[Package]:
    """Yield what can be imported from ``root``; what is shared for another's sake is left out."""
    try:
        entries = sorted(os.listdir(root))
    except OSError:
        return
    named = {rules.top, *rules.scope}
    for entry in entries:
        name = entry[:-3] if entry.endswith(".py") else entry
        if name.isidentifier() and name not in NOT_SOURCE:
            # A folder without __init__.py may be anything (uploads, static files): it is taken for
            # a namespace package when somebody says so, or when there is code in it.
            folder = os.path.join(root, name)
            code = name in named
            if not code and _has_code(folder):
                other = _elsewhere(name, root, rules)
                code = other is None
                if other is not None and not _is_regular(other) and not other.file:
                    theirs = other.folders[0]
                    left_out[name] = f"compiled modules in {theirs} belong to the same package"
            package = _package_in(root, name, "the application's own", namespaces=code)
            if package is None:
                continue
            if not package.file and not _is_regular(package):
                # The rest of a namespace package is wherever else on the path.
                whole = _find(name, rules.path) or package
                package = replace(package, file=whole.file, folders=whole.folders)
            yield package


def _is_regular(package: Package) -> bool:
    """Whether the package has an ``__init__.py``."""
    return any(os.path.isfile(os.path.join(folder, "__init__.py")) for folder in package.folders)


def _has_code(folder: str) -> bool:
    """Whether a module can be imported from below ``folder``; looks at so many folders at most."""
    if os.path.exists(os.path.join(folder, "pyvenv.cfg")):
        return False
    for count, (_, folders, files) in enumerate(os.walk(folder)):
        if any(name.endswith(".py") for name in files):
            return True
        if count >= MOST_FOLDERS:
            return False
        folders[:] = [name for name in folders if name.isidentifier() and name not in NOT_SOURCE]
    return False


def _elsewhere(name: str, root: str, rules: ScopeRules) -> Package | None:
    """Return what an import of ``name`` finds, or may find, in another folder and is not ours.

    The rest of a namespace package is no other's: unless there is compiled code in it.
    """
    for entry in rules.path:
        found = None
        if os.path.realpath(entry) != root:
            found = _package_in(entry, name, "", namespaces=True)
        if found is not None and (
            found.file or _is_regular(found) or _has_compiled(found.folders[0])
        ):
            return found
    return None


def _has_compiled(folder: str) -> bool:
    """Whether there is a compiled module below ``folder``, or too much to see."""
    for count, (_, folders, files) in enumerate(os.walk(folder)):
        if count >= MOST_FOLDERS or any(name.endswith(_EXTENSIONS) for name in files):
            return True
        folders[:] = [name for name in folders if name.isidentifier() and name not in NOT_SOURCE]
    return False


def _package_in(root: str, name: str, reason: str, *, namespaces: bool) -> Package | None:
    """Return what ``import name`` finds in the folder ``root``: a package before a module."""
    folder = os.path.join(root, name)
    if os.path.isfile(os.path.join(folder, "__init__.py")):
        return Package(name, None, (os.path.realpath(folder),), reason)
    if os.path.isfile(folder + ".py"):
        return Package(name, os.path.realpath(root) + os.sep + name + ".py", (), reason)
    if namespaces and os.path.isdir(folder):
        return Package(name, None, (os.path.realpath(folder),), reason)
    return None


def _find(name: str, path: Sequence[str]) -> Package | None:
    """Find a package wherever the import system finds it, editable installations included."""
    for entry in path:
        package = _package_in(entry, name, "named by an option", namespaces=False)
        if package is not None:
            return package
    importlib.invalidate_caches()
    spec = importlib.machinery.PathFinder.find_spec(name, list(path))
    if spec is None:
        for finder in sys.meta_path:
            found = getattr(finder, "find_spec", lambda *_: None)(name, None)
            if found is not None:
                spec = found
                break
    if spec is None or (spec.origin or "").endswith(_EXTENSIONS):
        return None
    if spec.submodule_search_locations:
        folders = tuple(os.path.realpath(folder) for folder in spec.submodule_search_locations)
        return Package(name, None, folders, "named by an option")
    if spec.origin and spec.origin.endswith(".py"):
        return Package(name, os.path.realpath(spec.origin), (), "named by an option")
    return None


def _below(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies below it, by components and not by characters."""
    return os.path.commonpath([path, folder]) == folder
