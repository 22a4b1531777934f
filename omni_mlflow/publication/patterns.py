"""What a pattern of ``public_package_allowed`` lets leave."""

from __future__ import annotations

from fnmatch import fnmatchcase


def fits(name: str, pattern: str) -> bool:
    """Whether ``name`` is one of ``pattern``, folder by folder: ``*`` is one name and never a path."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
