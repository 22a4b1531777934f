"""report.html is one file that loads nothing, runs nothing and shows what RUN_REPORT.md says."""

import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest

from omni_mlflow.metrics.labels import action_pairs, confusion_rows, per_episode_rows
from omni_mlflow.reporting.contact_sheets import ContactSheet, strip
from omni_mlflow.reporting.figures import figures_of
from omni_mlflow.reporting.page import render_page
from omni_mlflow.spine.evidence import Evidence

PROGRESS = [
    {"event": "start", "step": 0},
    {"event": "step", "step": 1, "loss": 2.0},
    {"event": "step", "step": 2, "loss": 1.0},
    {"event": "validation", "step": 2, "loss": 1.5},
]


class Tags(HTMLParser):
    """Collects tags, their attributes and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def figures(make_facts, rows):
    return figures_of(
        make_facts(),
        per_episode=per_episode_rows(rows),
        confusion=confusion_rows(action_pairs(rows)),
        progress=PROGRESS,
    )


@pytest.fixture
def sheet() -> ContactSheet:
    return ContactSheet(
        sample_id="room0__ep1:0",
        frames=[np.full((64, 96, 3), shade, dtype=np.uint8) for shade in (0, 128, 255)],
        frames_are="source frames 0, 4, 8",
        question="Label frames 0 to 19.",
        answer={"action": "Cut", "objects": ["b", "a"]},
        raw="{}",
        truth={"action": "Stir", "objects": ["a", "b"], "contact": "yes"},
    )


def width_and_height(png: bytes) -> tuple[int, int]:
    return struct.unpack(">II", png[16:24])


def test_the_page_loads_nothing_from_outside_and_runs_nothing(make_facts, figures, sheet):
    tags = Tags(render_page(make_facts(), figures=figures, contact_sheets=[sheet]))
    assert not [name for name, _ in tags.found if name in ("script", "link", "iframe", "object")]
    sources = [image["src"] or "" for image in tags.named("img")]
    assert len(sources) == len(figures) + 1
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(image["alt"] for image in tags.named("img"))
    assert "default-src 'none'" in str(tags.named("meta"))


def test_the_page_opens_with_the_run_class(make_facts):
    tags = Tags(render_page(make_facts(evidence=Evidence.SYNTHETIC), figures=[], contact_sheets=[]))
    assert {"class": "class synthetic"} in tags.named("p")
    assert any(text.startswith("SYNTHETIC DATA") for text in tags.text)


def test_every_value_is_escaped(make_facts, sheet):
    evil = '<img src=x onerror="alert(1)">'
    facts = make_facts(display_name=evil, base_model=evil)
    bad = ContactSheet(
        sample_id=evil,
        frames=[],
        frames_are=evil,
        question=evil,
        answer={},
        raw=evil,
        truth={evil: evil},
    )
    page = render_page(facts, figures=[], contact_sheets=[bad])
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", page)
    assert not Tags(page).named("img")


def test_a_contact_sheet_compares_answer_and_truth_key_by_key(sheet):
    assert sheet.compared() == [
        ("action", "Cut", "Stir", False),
        ("objects", "b, a", "a, b", True),
        ("contact", "(nothing)", "yes", False),
    ]


def test_the_same_facts_give_the_same_bytes(make_facts, rows, figures, sheet):
    again = figures_of(
        make_facts(),
        per_episode=per_episode_rows(rows[::-1]),
        confusion=confusion_rows(action_pairs(rows[::-1])),
        progress=PROGRESS,
    )
    one = render_page(make_facts(), figures=figures, contact_sheets=[sheet])
    assert one == render_page(make_facts(), figures=again, contact_sheets=[sheet])


def test_figures_are_900_pixels_wide_and_carry_no_date_or_program(figures):
    assert [figure.name for figure in figures] == ["floors", "controls", "episodes", "confusion", "loss"]
    for figure in figures:
        assert width_and_height(figure.png)[0] == 900
        assert b"tEXt" not in figure.png


def test_a_figure_without_data_is_left_out(make_facts):
    names = [each.name for each in figures_of(make_facts(), per_episode=[], confusion=[], progress=[])]
    assert names == ["floors", "controls"]


def test_frames_are_laid_side_by_side_and_large_ones_are_averaged_down():
    small = strip([np.zeros((64, 96, 3), dtype=np.uint8)] * 3, gap=6)
    assert width_and_height(small) == (3 * 96 + 2 * 6, 64)
    large = strip([np.zeros((640, 960, 3), dtype=np.uint8)] * 2, width=300, gap=6)
    assert width_and_height(large) == (2 * 240 + 6, 160)
