"""Fine-tune multimodal backbones on egocentric episodes and compare them honestly."""

import os

PARENT_PID = os.getppid()
"""Who started this process, asked before anything slow: it may be killed while the rest is imported."""
