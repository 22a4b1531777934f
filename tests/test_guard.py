"""The guard stage says how much of a split it could look at; finding nothing there is no proof by itself."""

from __future__ import annotations

from omni_mlflow.spine.synthetic import write_episode_set
from tests.conftest import TRIVIAL, Place
from tests.workbench import Workbench


def test_a_rule_that_compared_no_pair_of_a_green_split_is_named_everywhere(tmp_path, monkeypatch):
    """Recordings of 3 seconds share no 5 seconds of motion or sound, whatever they hold."""
    monkeypatch.syspath_prepend(str(TRIVIAL))
    data = tmp_path / "data"
    write_episode_set(data, sessions=6, frames=60, seed=11, anomalies="none", workers=1)
    bench = Workbench(Place(tmp_path, data), [])
    *_, guarded = [bench.run(stage) for stage in ("select", "split", "guard")]
    assert guarded.seal.metrics["checks/leaks"] == 0
    assert guarded.seal.metrics["checks/pairs_not_compared"] == 2 * 11  # of 3 x 2 + 3 x 1 + 2 x 1, twice
    for sentence in ("motion_disjoint compared 0 of 11 pairs", "sound_disjoint compared 0 of 11 pairs"):
        assert any(said.startswith(f"guard: {sentence}") for said in bench.said)
        assert sentence in (guarded.folder / "leak_graph.html").read_text().partition("</h1>")[0]
