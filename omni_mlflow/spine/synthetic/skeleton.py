"""A human skeleton with the 52 joints of SMPL-H, and how joint rotations become joint positions.

Rest pose: arms stretched sideways; x to the wearer's left, y up, z forward, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni_mlflow.spine.synthetic.rig import FloatArray

HEAD = 15


@dataclass(frozen=True)
class Arm:
    """Joints of one arm; ``side`` is 1 for the left one, which stretches along +x, and -1 for the right."""

    side: int
    shoulder: int
    elbow: int
    wrist: int
    fingers: slice


LEFT_ARM = Arm(side=1, shoulder=16, elbow=18, wrist=20, fingers=slice(22, 37))
RIGHT_ARM = Arm(side=-1, shoulder=17, elbow=19, wrist=21, fingers=slice(37, 52))

_BODY_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
_BODY_OFFSETS = (
    (0, 0, 0),  # pelvis
    (0.07, -0.09, 0), (-0.07, -0.09, 0), (0, 0.11, -0.02),  # hips, spine
    (0.02, -0.40, 0), (-0.02, -0.40, 0), (0, 0.13, 0),  # knees, spine
    (0, -0.41, -0.02), (0, -0.41, -0.02), (0, 0.06, 0.01),  # ankles, spine
    (0.02, -0.06, 0.12), (-0.02, -0.06, 0.12), (0, 0.21, -0.02),  # feet, neck
    (0.07, 0.12, -0.01), (-0.07, 0.12, -0.01), (0, 0.09, 0.05),  # collars, head
    (0.12, 0.03, -0.01), (-0.12, 0.03, -0.01),  # shoulders
    (0.26, 0, 0), (-0.26, 0, 0),  # elbows
    (0.25, 0, 0), (-0.25, 0, 0),  # wrists
)  # fmt: skip
_FINGERS = {  # from the wrist of a left hand to the first joint, and the length of each bone after it
    "index": ((0.095, 0, 0.025), 0.030),
    "middle": ((0.100, 0, 0.003), 0.031),
    "little": ((0.080, 0, -0.038), 0.022),
    "ring": ((0.092, 0, -0.019), 0.029),
    "thumb": ((0.035, -0.01, 0.032), 0.032),
}
_THUMB_TO_LITTLE = ("thumb", "index", "middle", "ring", "little")

RIG_ABOVE_PELVIS_M = 0.79  # the rig sits 0.19 m above the head joint
STANDING_M = 1.75
"""Height of the rig above the lowest joint of the feet."""


def _skeleton() -> tuple[tuple[int, ...], FloatArray]:
    parents = list(_BODY_PARENTS)
    offsets = [tuple(map(float, offset)) for offset in _BODY_OFFSETS]
    for arm in (LEFT_ARM, RIGHT_ARM):
        for (x, y, z), bone in _FINGERS.values():
            first = len(parents)
            parents += [arm.wrist, first, first + 1]
            offsets += [(arm.side * x, y, z), (arm.side * bone, 0.0, 0.0), (arm.side * bone, 0.0, 0.0)]
    return tuple(parents), np.array(offsets)


PARENTS, OFFSETS = _skeleton()


@dataclass(frozen=True)
class Pose:
    """A body in motion.

    Attributes:
        local: rotation of every joint against its parent, shape (frames, 52, 3, 3).
        turned: rotation of every joint in the world, same shape.
        joints: positions in the world in metres, shape (frames, 52, 3).
    """

    local: FloatArray
    turned: FloatArray
    joints: FloatArray


def forward_kinematics(local: FloatArray, pelvis: FloatArray, *, scale: float) -> Pose:
    """Pose the skeleton.

    Args:
        local: rotation of every joint against its parent, shape (frames, 52, 3, 3); the pelvis' own turns
            the skeleton into the world.
        pelvis: position in the world in metres, shape (frames, 3).
        scale: size of this body against the rest skeleton.
    """
    turned = local.copy()
    joints = np.repeat(pelvis[:, None], len(PARENTS), axis=1)
    for joint, parent in enumerate(PARENTS[1:], start=1):
        turned[:, joint] = turned[:, parent] @ local[:, joint]
        joints[:, joint] = joints[:, parent] + turned[:, parent] @ (scale * OFFSETS[joint])
    return Pose(local=local, turned=turned, joints=joints)


def hand_joints(pose: Pose, arm: Arm) -> FloatArray:
    """Return the 21 joints of one hand in the world: wrist, then thumb to little finger, base to tip.

    A tip lies as far beyond the last joint of its finger as that lies beyond the joint before.
    """
    parts = [pose.joints[:, arm.wrist : arm.wrist + 1]]
    for finger in _THUMB_TO_LITTLE:
        base = arm.fingers.start + 3 * list(_FINGERS).index(finger)
        bones = pose.joints[:, base : base + 3]
        parts += [bones, 2 * bones[:, 2:] - bones[:, 1:2]]
    return np.concatenate(parts, axis=1)
