"""Fixtures of the backbones' tests; each family keeps its own in a module beside this one."""

from qwen3_nano import qwen_checkpoint, qwen_log, qwen_nano

__all__ = ["qwen_checkpoint", "qwen_log", "qwen_nano"]
