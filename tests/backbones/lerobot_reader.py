"""Run by an interpreter that has lerobot: tells what its own class reads in a folder, as JSON."""

from __future__ import annotations

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root, camera = sys.argv[1:]
    dataset = LeRobotDataset("local/test", root=root, video_backend="pyav")
    frames = []
    for index in range(len(dataset)):
        row = dataset[index]
        frames.append(
            {
                "episode": int(row["episode_index"]),
                "frame": int(row["frame_index"]),
                "timestamp": float(row["timestamp"]),
                "task": row["task"],
                "action": row["action"].tolist(),
                "picture": row[camera].permute(1, 2, 0)[4::8, 4::8, 0].tolist(),
            }
        )
    ahead = LeRobotDataset(
        "local/test",
        root=root,
        video_backend="pyav",
        delta_timestamps={"action": [step / dataset.fps for step in range(4)]},
    )
    chunk = ahead[0]["action"].tolist()
    mean = dataset.meta.stats["action"]["mean"]
    told = {"fps": dataset.fps, "frames": frames, "chunk": chunk, "mean": [float(each) for each in mean]}
    sys.stdout.write(json.dumps(told) + "\n")


main()
