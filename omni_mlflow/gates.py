"""Which gates a contract asks for: the backbone's own, and those that installed packages add.

A package of somebody else adds a gate with an entry point of the group ``omni_mlflow.gates``, its name the
one that a contract uses and its value the function, such as ``my_package.gates:no_tensor_is_huge``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from omni_mlflow.code_digest import code_digest
from omni_mlflow.contract import Contract, ContractError, resolve

if TYPE_CHECKING:
    from omni_mlflow.backbones.base import Backbone, Gate

ENTRY_POINT_GROUP = "omni_mlflow.gates"


def gate_names(contract: Contract) -> tuple[str, ...]:
    """The gates of a contract in the order they are asked: the model family's own, then what was added."""
    files = contract.artifact_contract
    return tuple(dict.fromkeys((files.checkpoint_gate, *files.further_gates)))


def gates_of(contract: Contract, backbone: Backbone) -> dict[str, Gate]:
    """Return the functions behind the gates of a contract, by name.

    Raises:
        ContractError: as :func:`gate_of`.
    """
    return {name: gate_of(name, backbone) for name in gate_names(contract)}


def gate_of(name: str, backbone: Backbone) -> Gate:
    """Return the function behind one name; a package cannot put another in the place of a backbone's own.

    Raises:
        ContractError: nobody provides a gate of that name, or what a package provides is no function.
    """
    own = backbone.gates
    if name in own:
        return own[name]
    installed = installed_gates()  # looks through every package of the environment
    resolve("checkpoint gate", name, {**installed, **own})
    return _loaded(installed[name])


def installed_gates() -> Mapping[str, EntryPoint]:
    """The gates that installed packages add, by name, not yet imported.

    Raises:
        ContractError: two packages add a gate of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for each in entry_points(group=ENTRY_POINT_GROUP):
        if found.setdefault(each.name, each).value != each.value:
            raise ContractError(
                f"two installed packages add the gate {each.name!r}: {found[each.name].value} and "
                f"{each.value}; uninstall one of them"
            )
    return found


def installed_code(contract: Contract) -> dict[str, str]:
    """Digest of the code of every gate of a contract that an installed package adds, by gate."""
    found = installed_gates()
    return {name: code_digest(found[name].module) for name in gate_names(contract) if name in found}


def _loaded(entry: EntryPoint) -> Gate:
    where = f"checkpoint gate {entry.name!r} ({entry.value})"
    try:
        gate: Gate = entry.load()
    except (Exception, SystemExit) as error:  # whatever importing foreign code can raise
        raise ContractError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(gate):
        raise ContractError(f"{where} is no function")
    return gate
