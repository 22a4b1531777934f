"""Which gates a contract asks for: the backbone's own, and those that installed packages add.

A package of somebody else adds a gate with an entry point of the group ``omni_mlflow.gates``, its name the
one that a contract uses and its value the function, such as ``my_package.gates:no_tensor_is_huge``.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from omni_mlflow.code_digest import code_digest
from omni_mlflow.contract import Contract, ContractError, resolve
from omni_mlflow.installed import added_by, is_written_well, the_one
from omni_mlflow.interruption import Interrupted
from omni_mlflow.loaded_code import LOADED
from omni_mlflow.protocol import trouble_with_gate

if TYPE_CHECKING:
    from omni_mlflow.backbones.base import Backbone, Gate

ENTRY_POINT_GROUP = "omni_mlflow.gates"
KIND = "checkpoint gate"


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
        ContractError: nobody provides a gate of that name, two packages do, or what a package provides is no
            function.
    """
    own = backbone.gates
    if name in own:
        return own[name]
    added = added_by(ENTRY_POINT_GROUP)  # looks through every package of the environment
    resolve(KIND, name, {**added, **own})
    return _loaded(the_one(KIND, name, added))


def installed_code(contract: Contract) -> dict[str, str]:
    """Digest of the code of every gate of a contract that an installed package adds, by gate."""
    added = added_by(ENTRY_POINT_GROUP)
    return {
        name: code_digest(*(each.module for each in added[name] if is_written_well(each)))
        for name in gate_names(contract)
        if name in added
    }


def _loaded(entry: EntryPoint) -> Gate:
    LOADED.watch(entry.module)
    where = f"{KIND} {entry.name!r} ({entry.value})"
    try:
        gate: Gate = entry.load()
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # whatever importing foreign code can raise
        raise ContractError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    if (trouble := trouble_with_gate(gate)) is not None:
        raise ContractError(f"{where} {trouble}")
    return gate
