"""Whether the base model that a contract names is on this machine, or can be fetched."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from omni_mlflow.contract import Contract

HUB_TIMEOUT_S = 5


def weights_of(contract: Contract) -> tuple[bool, str]:
    """Return whether the base model can be loaded, and from where."""
    from huggingface_hub import constants, try_to_load_from_cache

    if contract.status == "planned_adapter":
        return True, "not built yet: nothing loads it"
    model = contract.default_model_id
    folder = os.environ.get(contract.local_model_env)
    if folder:
        ok = (Path(folder) / "config.json").is_file()
        return ok, f"{contract.local_model_env}={folder}{'' if ok else ' holds no config.json'}"
    if model is None or isinstance(try_to_load_from_cache(model, "config.json"), str):
        return True, f"{model} in the local cache" if model else "needs none"
    if constants.HF_HUB_OFFLINE:
        return False, f"{model} is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it"
    if (trouble := trouble_with_hub()) is not None:
        return False, f"{model} is not in the local cache, and {trouble}"
    return True, f"{model} is not in the local cache: train would fetch it from {constants.ENDPOINT}"


@cache
def trouble_with_hub() -> str | None:
    """Why nothing can be fetched from the model hub now; None when it answers, whatever it says."""
    from huggingface_hub import constants

    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT_S):
            return None
    except HTTPError:
        return None
    except (OSError, ValueError) as error:
        return f"{constants.ENDPOINT} does not answer: {error}"
