"""An annotation of full length: 6,000 frames, 2 GB of depth, opened and read in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from handmade import annotation, caption, segment

NUM_FRAMES = 6000
IMAGE = (NUM_FRAMES, 256, 256)

READ = """
import json, resource, sys, time
from pathlib import Path
from omni_mlflow.spine.episodes import open_episode

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

facts, before = {}, peak_mb()
def step(name, work):
    start = time.perf_counter()
    value = work()
    facts[name] = {"seconds": time.perf_counter() - start, "grown_mb": peak_mb() - before}
    return value

opened = open_episode(Path(sys.argv[1]))
episode = step("open", opened.__enter__)
step("clock", lambda: (episode.num_frames, episode.fps))
step("captions", episode.captions)
step("poses", episode.camera_to_world)
step("depth of 20 frames", lambda: episode.depth_rows(3000, 3020))
step("coverage", episode.coverage)
facts["num_frames"], facts["actions"] = episode.num_frames, len(set(episode.captions().action))
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def big_episode(tmp_path_factory) -> Path:
    """Depth and confidence are laid out but never written, so the file is 2 GB long and takes 20 MB."""
    folder = tmp_path_factory.mktemp("big") / "ep1"
    folder.mkdir()
    datasets = annotation(NUM_FRAMES)
    stamps = [int(stamp) for stamp in datasets["video/device_timestamp"]]
    datasets["caption"] = caption(
        *(
            segment(
                str(stamps[first]),
                str(stamps[first + 332]),
                (f"Action {first}", stamps[first], stamps[first + 300]),
                objects={str(stamps[first]): ["cup"]},
            )
            for first in range(0, NUM_FRAMES - 332, 333)
        )
    )
    with h5py.File(folder / "annotation.hdf5", "w") as file:
        for name, value in datasets.items():
            if not name.startswith("depth/"):
                file[name] = value
        for name, dtype in (("depth/depth", np.float32), ("depth/confidence", np.uint8)):
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_layout(h5py.h5d.CONTIGUOUS)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space, kind = h5py.h5s.create_simple(IMAGE), h5py.h5t.py_create(np.dtype(dtype))
            links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
            links.set_create_intermediate_group(True)
            h5py.h5d.create(file.id, name.encode(), kind, space, layout, links)
    return folder


def test_a_file_of_2_gb_opens_at_once_and_reading_it_takes_little_memory(big_episode):
    assert (big_episode / "annotation.hdf5").stat().st_size > 1_960_000_000
    done = subprocess.run(
        [sys.executable, "-c", READ, str(big_episode)], capture_output=True, text=True, check=True
    )
    facts = json.loads(done.stdout)
    assert facts["num_frames"] == NUM_FRAMES
    assert facts["actions"] == 18
    assert facts["open"]["seconds"] < 0.5
    assert max(facts[step]["grown_mb"] for step in facts if isinstance(facts[step], dict)) < 300
    assert facts["captions"]["seconds"] + facts["poses"]["seconds"] < 5
