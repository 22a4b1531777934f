"""What can happen in the synthetic world, and what it looks like.

The colour of the block is the noun of an action, the tool in view is its verb. Twelve common actions
are shared by all sessions; every other action is private to the session that drew it.
"""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[int, int, int]

COMMON_COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (215, 205, 40),
    "cyan": (40, 205, 215),
    "purple": (165, 50, 200),
}
"""RGB of the blocks that every session handles, the most frequent first."""

PRIVATE_COLOURS: dict[str, Colour] = {
    "orange": (245, 125, 15),
    "pink": (250, 150, 190),
    "brown": (115, 60, 20),
    "white": (245, 245, 245),
    "black": (10, 10, 10),
    "beige": (230, 200, 150),
    "olive": (120, 125, 10),
    "teal": (0, 105, 100),
    "navy": (10, 20, 95),
    "maroon": (120, 5, 60),
}

COMMON_TOOLS: dict[str, tuple[str, Colour]] = {
    "Brush": ("bright", (235, 235, 235)),
    "Scrape": ("dark", (20, 20, 20)),
}
"""For each common verb: how its tool looks in words, and its RGB."""

PRIVATE_TOOLS: dict[str, tuple[str, Colour]] = {
    "Fold": ("red", (225, 30, 30)),
    "Stir": ("green", (30, 200, 50)),
    "Peel": ("blue", (40, 60, 235)),
    "Pour": ("yellow", (230, 220, 30)),
    "Tape": ("cyan", (30, 215, 225)),
    "Weigh": ("purple", (170, 40, 210)),
    "Polish": ("orange", (245, 125, 15)),
    "Measure": ("pink", (250, 140, 190)),
}

PRIVATE_THINGS = (
    "apron", "basket", "bottle", "bowl", "box", "candle", "cloth", "cup", "dough", "envelope",
    "filter", "glove", "jar", "kettle", "lid", "mug", "napkin", "paper strip", "plate", "ribbon", "sponge",
)  # fmt: skip

TASKS = ("Preparing", "Sorting", "Restoring", "Packing", "Cleaning", "Inspecting")
PLACES = ("kitchen table", "workbench", "shop counter", "craft desk", "stock room shelf", "garage bench")
"""A main task is one of each: it names the place and the kind of work, never an action."""


@dataclass(frozen=True)
class Action:
    """Something that can be done to one object.

    Attributes:
        label: as an annotator writes it, verb first.
        colour, tool: how block and tool look, in words.
        block, bar: their RGB before the session's tints.
        private: drawn for one session only.
    """

    label: str
    object_name: str
    colour: str
    tool: str
    block: Colour
    bar: Colour
    private: bool

    @property
    def subtask(self) -> str:
        return f"Handle {self.object_name}"


def common_action(verb: str, colour: str) -> Action:
    tool, bar = COMMON_TOOLS[verb]
    name = f"{colour} block"
    return Action(f"{verb} {name}", name, colour, tool, COMMON_COLOURS[colour], bar, private=False)


def private_action(verb: str, colour: str, thing: str) -> Action:
    tool, bar = PRIVATE_TOOLS[verb]
    name = f"{colour} {thing}"
    return Action(f"{verb} {name}", name, colour, tool, PRIVATE_COLOURS[colour], bar, private=True)


COMMON_ACTIONS = tuple(common_action(verb, colour) for colour in COMMON_COLOURS for verb in COMMON_TOOLS)
