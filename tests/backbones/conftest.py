"""Fixtures of the backbones' tests; each family keeps its own in a module beside this one."""

from policy_exports import policy_exported, policy_folder
from policy_nano import policy_checkpoint, policy_log, policy_lora_checkpoint, policy_nano
from qwen3_nano import qwen_checkpoint, qwen_log, qwen_nano

__all__ = [
    "policy_checkpoint",
    "policy_exported",
    "policy_folder",
    "policy_log",
    "policy_lora_checkpoint",
    "policy_nano",
    "qwen_checkpoint",
    "qwen_log",
    "qwen_nano",
]
