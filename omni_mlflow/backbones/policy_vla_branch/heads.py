"""Small heads that name what is done, what comes next and which objects take part; saved beside the model.

They read the mean over the image tokens, the mean over the text tokens (both after the language model) and
the state. One mean over all tokens loses the order of the words, and with it the next action.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.label_answers import compact
from omni_mlflow.backbones.policy_vla_branch.data import NOT_ANNOTATED, PredictionBatch
from omni_mlflow.metrics.answers import UNKNOWN
from omni_mlflow.spine.rows import read_document, write_document
from omni_mlflow.spine.types import Row

HEADS_NAME, WEIGHTS_NAME = "heads.json", "heads.safetensors"
CONTACT_LABELS = ("no", "yes")
HIDDEN = 64


class HeadLabels(Row):
    """What each head chooses from: the labels of the train samples, sorted; ``heads.json``.

    Contact has both its labels, or none where no train sample tells.

    Attributes:
        features: number of inputs of every head; 0 before a model is known.
    """

    action: tuple[str, ...]
    next_action: tuple[str, ...]
    next_contact: tuple[str, ...]
    objects: tuple[str, ...]
    features: int = 0

    def sizes(self) -> dict[str, int]:
        """Number of outputs by head; a question without any label in train has no head."""
        names = ("action", "next_action", "next_contact", "objects")
        return {name: len(getattr(self, name)) for name in names if getattr(self, name)}


def new_heads(labels: HeadLabels, *, seed: int) -> Any:
    """Return untrained heads, a ``ModuleDict`` by question; the same seed draws the same weights."""
    import torch

    torch.manual_seed(seed)
    return torch.nn.ModuleDict(
        {
            name: torch.nn.Sequential(
                torch.nn.LayerNorm(labels.features),
                torch.nn.Linear(labels.features, HIDDEN),
                torch.nn.GELU(),
                torch.nn.Linear(HIDDEN, size),
            )
            for name, size in labels.sizes().items()
        }
    )


def num_features(config: Any) -> int:
    """Number of features of a model with this configuration."""
    return int(2 * config.vlm_config.text_config.hidden_size + config.max_state_dim)


def head_features(hidden: Any, batch: PredictionBatch, *, image_token: int) -> Any:
    """Return the features of every row, (batch, 2 x width + state width), in float32.

    Args:
        hidden: what the language model makes of the tokens, (batch, tokens, width).
    """
    import torch

    seen = batch.attention_mask.bool()
    is_image = batch.input_ids == image_token
    means = []
    for chosen in (seen & is_image, seen & ~is_image):
        weights = chosen[..., None].float()
        means.append((hidden.float() * weights).sum(1) / weights.sum(1))
    return torch.cat([*means, batch.state.float()], dim=-1)


def head_loss(scores: dict[str, Any], labels: dict[str, Any], *, next_action_weight: float) -> Any:
    """Sum the cross entropies of all heads, each averaged over its annotated samples."""
    import torch

    total = torch.zeros((), device=next(iter(scores.values())).device)
    for name, score in scores.items():
        truth = labels[name]
        if name == "objects":
            known = ~truth.isnan()
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                score, truth.nan_to_num(), reduction="none"
            )
            loss = (each * known).sum() / known.sum().clamp(min=1)
        else:
            each = torch.nn.functional.cross_entropy(
                score, truth, ignore_index=NOT_ANNOTATED, reduction="sum"
            )
            loss = each / (truth != NOT_ANNOTATED).sum().clamp(min=1)
        total = total + (next_action_weight if name == "next_action" else 1.0) * loss
    return total


def label_answers(scores: dict[str, Any], labels: HeadLabels, *, rows: int) -> list[str]:
    """Return the answer of every row as JSON: the likeliest label, and every object above one half."""
    chosen: dict[str, Sequence[Any]] = {}
    for name, score in scores.items():
        options = getattr(labels, name)
        if name == "objects":
            chosen[name] = [
                [label for label, value in zip(options, row, strict=True) if value > 0]
                for row in score.tolist()
            ]
        else:
            chosen[name] = [options[index] for index in score.argmax(dim=-1).tolist()]
    for name in ("action", "next_action", "next_contact"):
        chosen.setdefault(name, [UNKNOWN] * rows)
    chosen.setdefault("objects", [[UNKNOWN]] * rows)
    names = ("action", "objects", "next_action", "next_contact")
    return [compact({name: chosen[name][row] for name in names}) for row in range(rows)]


def save_heads(folder: Path, heads: Any, labels: HeadLabels) -> None:
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in heads.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    write_document(folder / HEADS_NAME, labels)


def load_heads(folder: Path) -> tuple[Any, HeadLabels]:
    """Load the heads of a checkpoint.

    Raises:
        RuntimeError: the tensors are not those that the labels ask for.
    """
    from safetensors.torch import load_file

    labels = read_document(folder / HEADS_NAME, HeadLabels)
    heads = new_heads(labels, seed=0)
    heads.load_state_dict(load_file(folder / WEIGHTS_NAME))
    return heads.eval(), labels
