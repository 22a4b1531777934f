"""What a model can be shown of an episode, and what it can be trained to produce."""

from __future__ import annotations

from typing import Literal

Modality = Literal[
    "mosaic_video",
    "camera_video",
    "audio",
    "language",
    "depth",
    "camera_pose",
    "body_mocap",
    "hand_mocap",
    "imu",
    "visualization_rrd",
]
"""What an episode holds that a model can be shown."""

ModelTarget = Literal[
    "future_video",
    "future_latents",
    "future_sensor_features",
    "transition_event",
    "contact_event",
    "action_class",
    "next_action",
    "hand_trajectory",
    "retargeted_humanoid_action",
    "robot_action_token",
]
"""What a model can be trained to produce beside the answers to questions."""
