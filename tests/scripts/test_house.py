"""scripts/house on a package of a few files whose measures can be counted by hand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
FILES = {
    "__init__.py": '"""A tiny house."""\n\nfrom .core import promised\n\n__all__ = ["promised"]\n',
    "core.py": '''\
"""The bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run.walk import walk


def promised() -> int:
    return _private()


def _private() -> int:
    """Ends every chain."""
    return 1


def lonely(told: dict[str, Any]) -> Any:
    """Nobody calls it."""


class Box:
    """Opens."""

    def __init__(self) -> None:
        promised()

    def open_it(self) -> int:
        return self._inside

    @property
    def _inside(self) -> int:
        return promised()

    def get(self) -> int:
        return promised()
''',
    # Two files that import each other, one of them inside a function; both call each other too.
    "left.py": """\
from .right import right_turn


def left_turn(n):
    return right_turn(n)
""",
    "right.py": """\
from . import core


def right_turn(n):
    from .left import left_turn

    return left_turn(n - 1) if n else core.promised()
""",
    "run/__init__.py": '"""The contents."""\n\nfrom .walk import walk\n\n__all__ = ["walk"]\n',
    "run/walk.py": """\
import json

from ..core import Box
from . import steps


def walk(thing, tool):
    def inside():
        return steps.first(Box())

    json.loads("1").open_it()
    thing.get()
    return inside()
""",
    "run/steps.py": """\
from ..core import Box
from . import walk as back


def first(box: Box):
    return second(box)


def second(anything):
    return anything.open_it()


def shared():
    return 1


def unused():
    return back
"""
    + "# filler\n" * 50,
    "cli/__init__.py": "",
    "cli/training.py": """\
from ..left import left_turn


@app.command()
def train(n):
    from ..run import walk

    left_turn(n)
    return walk(n, n)
""",
    "models/__init__.py": "",
    "models/zoo.py": """\
from ..core import Box


def create_model():
    with Box() as box:
        return box.open_it()
""",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house") / "tiny"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder.parent / "tests").mkdir()
    (folder.parent / "tests" / "test_tiny.py").write_text("from tiny.core import lonely\n")
    return folder


def house(package: Path, *words: str, fails: bool = False) -> str:
    command = [str(ROOT / "scripts" / "house"), "--package", str(package), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bool(done.returncode) is fails, done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def found(package):
    return json.loads(house(package, "--json"))


def test_sizes(found):
    assert found["files"] == len(FILES)
    assert found["root_modules"] == 3
    assert found["sub_packages"] == 3
    assert found["lines"] == sum(len(text.splitlines()) for text in FILES.values())
    lengths = sorted(len(text.splitlines()) for text in FILES.values())
    assert found["file_length"] == {"median": lengths[5], "p90": lengths[9], "max": lengths[10]}
    assert found["function_length"]["max"] == 7  # walk, with the function inside it
    assert found["function_length"]["median"] == 2


def test_short_files_leave_out_tables_of_contents(found):
    short = {"core.py", "left.py", "right.py", "run/walk.py", "cli/training.py", "models/zoo.py"}
    assert set(found["short_files"]) == short
    assert found["short_files"]["left.py"] == 5
    assert found["short_files_share"] == round(len(short) / len(FILES), 3)


def test_public_definitions(found):
    # promised, lonely, Box; left_turn; right_turn; walk; first, second, shared, unused; train; create_model
    assert found["public_definitions"] == 12
    assert found["public_per_1000_lines"] == round(12_000 / found["lines"], 1)
    assert found["public_documented"] == round(2 / 12, 3)


def test_unused_definitions_and_who_uses_them(found):
    users = {row["name"]: row["used_by"] for row in found["unused"]}
    assert users == {
        "lonely": ["tests"],
        "second": ["its own module"],
        "shared": [],
        "unused": [],
        "create_model": [],
    }  # not promised (in __all__), and not train (a decorator registers it)


def test_any(found):
    assert found["dict_str_any"] == 1
    assert found["any"] == 2


def test_cycles(found):
    assert found["module_cycles_at_import"] == [["tiny.run", "tiny.run.steps", "tiny.run.walk"]]
    assert found["module_cycles_with_functions"] == [
        ["tiny.left", "tiny.right"],
        ["tiny.run", "tiny.run.steps", "tiny.run.walk"],
    ]
    assert found["room_cycles_at_import"] == []  # what is imported for type checking makes none
    assert found["room_cycles_with_functions"] == [["left", "right"]]


def test_imports_between_rooms(found):
    assert found["room_edges_at_import"] == [
        "cli -> left",
        "left -> right",
        "models -> core",
        "right -> core",
        "run -> core",
        "tiny -> core",
    ]
    assert found["room_edges_in_functions_only"] == ["cli -> run", "right -> left"]


def test_walks(found):
    walks = found["walks"]
    # train, walk, first, second, open_it, _inside, promised, _private: and left_turn, right_turn, Box.__init__ beside.
    assert walks["train"] == {"root": "tiny.cli.training:train", "depth": 8, "functions": 11, "files": 6}
    # create_model, open_it, _inside, promised, _private, and Box.__init__.
    assert walks["create_model"]["depth"] == 5
    assert walks["create_model"]["functions"] == 6
    assert walks["publish"] is None


def test_the_deepest_chain_is_printed_with_its_places(package):
    lines = house(package, "--walk", "train").splitlines()
    assert [line.split()[2] for line in lines] == [
        "train",
        "walk",
        "first",
        "second",
        "Box.open_it",
        "Box._inside",
        "promised",
        "_private",
    ]
    assert lines[1].split()[1] == "tiny/run/walk.py:7"
    assert "expected one of cli.publishing:publish" in house(package, "--walk", "publish", fails=True)


def test_functions_in_a_circle_are_one_step(tmp_path):
    (tmp_path / "ring" / "cli").mkdir(parents=True)
    (tmp_path / "ring" / "__init__.py").touch()
    text = "def train():\n    a()\n\n\ndef a():\n    b()\n\n\ndef b():\n    a()\n    c()\n\n\ndef c():\n    pass\n"
    (tmp_path / "ring" / "cli" / "__init__.py").write_text(text)
    lines = house(tmp_path / "ring", "--walk", "train").splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("a  (and 1 in a circle with it)")


def test_a_name_that_several_classes_have_is_resolved_to_none(tmp_path):
    (tmp_path / "twins" / "cli").mkdir(parents=True)
    (tmp_path / "twins" / "__init__.py").touch()
    classes = "class A:\n    def go(self): ...\n\n\nclass B:\n    def go(self): ...\n\n\n"
    text = classes + "def train(x):\n    x.go()\n\n\ndef publish(x: A | None):\n    x.go()\n"
    (tmp_path / "twins" / "cli" / "__init__.py").write_text(text)
    walks = json.loads(house(tmp_path / "twins", "--json"))["walks"]
    assert (walks["train"]["depth"], walks["publish"]["depth"]) == (1, 2)


def test_the_table(package):
    table = house(package)
    assert "| files | 11 |" in table
    assert "| walk `train`: depth / functions / files | 8 / 11 / 6 |" in table
    assert "left <-> tiny.right" in table


def test_the_picture_is_the_same_each_time_and_names_every_room(package, tmp_path):
    for name in ("one.svg", "two.svg"):
        house(package, "--draw", str(tmp_path / name))
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    words = {"".join(node.itertext()) for node in ElementTree.fromstring(text).iter() if node.tag.endswith("text")}
    assert {"cli/", "core.py", "left.py", "right.py", "run/", "models/", "__init__.py"} <= words
    assert "run imports core" in text
    assert "cli imports run, inside functions only" in text
    assert "right imports left, which closes a cycle" in text
    assert "left imports core" not in text  # it follows from left -> right -> core


def test_help_says_the_rules_and_a_wrong_folder_is_refused(tmp_path):
    assert "Functions that call one another in a circle are one step." in house(tmp_path, "--help")
    assert "it has no __init__.py" in house(tmp_path, "--json", fails=True)


def test_this_package_keeps_its_measures():
    """What docs/architecture.md promises of the package as it grows."""
    found = json.loads(house(ROOT / "vcreg_hub", "--json"))
    assert all(walk and walk["depth"] > 3 for walk in found["walks"].values())
    assert found["walks"]["train"]["depth"] <= 12, "scripts/house --walk train shows the chain"
    assert found["root_modules"] <= 9
    assert found["public_per_1000_lines"] <= 23
    assert found["short_files_share"] <= 0.1
    assert not found["module_cycles_with_functions"] and not found["room_cycles_with_functions"]
