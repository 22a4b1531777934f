"""The source of this project and its plug-ins as this process runs it, whatever becomes of the files.

A module runs as it was when it was imported, and a stage that takes hours imports some only then. So every
file is read once: when its module is imported, or before the first stage begins. From then on a module that
is imported must still be what was read; one that was loaded before runs on, and is known by what was read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class EditedCodeError(Exception):
    """A module was about to run that is not the one whose digest would be sealed."""


class LoadedCode:
    """Stands before all finders of modules, where it sees every import; it finds none itself."""

    def __init__(self, package: str) -> None:
        self._packages = {package}
        self._sources: dict[Path, bytes] = {}
        self._held: dict[Path, str] | None = None
        self._edited: Path | None = None

    def watch(self, module: str) -> None:
        """Remember what is imported of another package from now on; what Python itself brings stays out."""
        package = module.partition(".")[0]
        if package not in sys.stdlib_module_names:
            self._packages.add(package)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Read the source of a module that is about to be imported.

        Raises:
            EditedCodeError: the command had begun, and the file is another one now.
        """
        if name.partition(".")[0] not in self._packages:
            return
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        file = _file_of(next(filter(None, others), None))
        if file is None or not file.is_file():  # in an archive, which nobody edits while it is used
            return
        if self._held is None:
            self._sources[file] = file.read_bytes()
        elif self._differs(file, file.read_bytes()):
            self._edited = file
            self.refuse_edited()

    def _differs(self, file: Path, source: bytes) -> bool:
        """Whether a file is another one, or a new one that stands in the place of one that was there."""
        held = self._held or {}
        if file in held:
            return held[file] != _digest(source)
        module, package = file.parent.with_suffix(".py"), file.with_suffix("") / "__init__.py"
        return (file.name == "__init__.py" and module in held) or package in held

    def source(self, file: Path) -> bytes:
        """Return a file as it was when this process first met it."""
        if file not in self._sources:
            self._sources[file] = file.read_bytes()
            if self._held is not None:
                self._held[file] = _digest(self._sources[file])
        return self._sources[file]

    def holds(self, file: Path) -> bool:
        return file in self._sources or file.is_file()

    def hold(self) -> None:
        """Read what was not read yet of every watched package: a command begins its work."""
        for package in sorted(self._packages):
            for file in files_of(package):
                with suppress(OSError):  # what cannot be read now cannot be imported either
                    self.source(file)
        self._held = {file: _digest(source) for file, source in self._sources.items()}
        self._edited = None

    def release(self) -> None:
        """Let edited modules be imported again: the command has ended."""
        self._held, self._edited = None, None

    def held(self) -> tuple[set[str], Mapping[Path, str] | None]:
        """What :meth:`hold_to` takes in a process that works for this one."""
        return self._packages, self._held

    def hold_to(self, packages: set[str], held: Mapping[Path, str] | None) -> None:
        """Do what another process holds to; what this one has imported already must be that, too."""
        self._packages |= packages
        if held is not None:
            self._held = dict(held)
            edited = (each for each, source in self._sources.items() if self._differs(each, source))
            self._edited = next(edited, None)

    def refuse_edited(self) -> None:
        """Raise what was raised before, in case somebody caught it.

        Raises:
            EditedCodeError: an edited module was to be imported.
        """
        if self._edited is not None:
            raise EditedCodeError(
                f"{self._edited} was edited after this command began; start the same command again: "
                "what is finished is reused"
            )


def files_of(package: str) -> Iterator[Path]:
    """Yield every Python file of an installed package, or the one file of a module."""
    spec = spec_of(package)
    if (file := _file_of(spec)) is not None:
        yield file
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from sorted(_modules_below(folder, {Path(folder).resolve()}))


def _modules_below(folder: str, around: set[Path]) -> Iterator[Path]:
    """Yield what can be imported from a folder and those in it, links to folders too, but into no circle."""
    for each in os.scandir(folder):
        if each.is_dir():
            place = Path(each.path).resolve()
            if place not in around:
                yield from _modules_below(each.path, {*around, place})
        elif is_module(Path(each.path)):
            yield Path(each.path)


def is_module(path: Path) -> bool:
    """Whether Python could import a file: editors leave others beside it, links to nowhere among them."""
    return path.stem.isidentifier() and path.is_file()


def file_of(module: str) -> Path | None:
    """Return the source file of a module, importing none; None when that is a name inside a module."""
    package, *inner = module.split(".")
    spec = spec_of(package)
    if spec is None or not inner:
        return _file_of(spec)
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *inner)
        for file in (path / "__init__.py", path.parent / f"{path.name}.py"):
            if LOADED.holds(file):
                return file
    return None


def spec_of(package: str) -> ModuleSpec | None:
    try:
        return find_spec(package)
    except ValueError:  # a module that somebody made by hand
        return None


def _file_of(spec: ModuleSpec | None) -> Path | None:
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _digest(source: bytes) -> str:
    return sha256(source).hexdigest()


LOADED = LoadedCode(__name__.partition(".")[0])
"""Of this process."""
