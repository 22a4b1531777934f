"""Fine-tune multimodal backbones on egocentric episodes and compare them honestly."""

import os
import sys

PARENT_PID = os.getppid()
"""Who started this process, asked before anything slow: it may be killed while the rest is imported."""

from omni_mlflow.loaded_code import LOADED  # noqa: E402 - what follows is slower than the question above

sys.meta_path.insert(0, LOADED)
