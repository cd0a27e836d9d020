"""SECURITY.md: each claim holds."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hub.folders import make_loadable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import Loopback
from PIL import Image
from watched import SITE

from vcreg_hub.config import from_json, to_json
from vcreg_hub.errors import ConfigError, VCRegError
from vcreg_hub.files import write_json
from vcreg_hub.models.build import build_on_meta
from vcreg_hub.models.native import load_config
from vcreg_hub.recipes import load_recipe
from vcreg_hub.rundir import RunDir

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vcreg_hub"
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def calls():
    """(file, the function as it is written, its keyword arguments) of every call in the package, but of
    import_module with a name that stands in the source."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                if ast.unparse(node.func).endswith("import_module") and isinstance(node.args[0], ast.Constant):
                    continue
                named = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                yield path.relative_to(PACKAGE).as_posix(), ast.unparse(node.func), named


def imports():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((path.relative_to(PACKAGE).as_posix(), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield path.relative_to(PACKAGE).as_posix(), str(node.module)


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_no_pickle_is_read_unguarded():
    guarded = 0
    for path, function, named in calls():
        if function in ("torch.load", "load_state_dict_from_url") or function.endswith(".get_state_dict"):
            assert named.get("weights_only") == "True", f"{path}: {function}"
            guarded += 1
        if function.endswith(("np.load", "numpy.load")):
            assert "allow_pickle" not in named, path
        assert not function.startswith(("pickle.load", "joblib", "dill", "cloudpickle", "marshal", "shelve")), path
        assert function != "yaml.load", f"{path}: yaml.load may build any object"
    assert guarded == 3, "the original VideoMAE's files, checkpoints to import, and torchvision's weights"
    # CIFAR's own unpickler, and the name of an exception.
    assert {path for path, name in imports() if name == "pickle"} == {
        "data/image/cifar.py",
        "models/videomae_original.py",
    }
    strange = {"joblib", "dill", "cloudpickle", "marshal", "shelve"}
    assert not [(path, name) for path, name in imports() if name.partition(".")[0] in strange]


def test_the_source_runs_no_text():
    for path, function, named in calls():
        assert function not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), f"{path}: {function}"
        assert named.get("shell") != "True", f"{path}: {function}"
        if "trust_remote_code" in named:
            assert named["trust_remote_code"] == "False", path
    # Where a name becomes a module: a person's word, names of this package's own tables, and a recipe file under guard.
    assert {path for path, function, _ in calls() if function.endswith("import_module")} == {
        "__init__.py",
        "config/tagged.py",
        "loops/__init__.py",
        "loops/lightning.py",
        "recipes/__init__.py",
    }


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module on Python's path that leaves a file behind when it is imported."""
    (tmp_path / "modules").mkdir()
    text = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    for name in ("evil_task", "evil_package/__init__", "evil_package/inner"):
        path = tmp_path / "modules" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.delenv("VCREG_MODULES", raising=False)
    return tmp_path / "ran"


RECIPE = json.loads(to_json(load_recipe("digits:convnext_atto_vcreg")))
NAMED = st.sampled_from(
    ["evil_task:X", "evil_package.inner:X", "evil_package:X", "antigravity:X", "os:system", "a:b:c"]
)
TAGGED = NAMED | st.fixed_dictionaries({"type": NAMED})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.sampled_from(["task", "vcreg", "evals"]), tag=TAGGED, more=st.booleans())
def test_a_recipe_file_imports_nothing(evil, part, tag, more):
    tagged = [*(RECIPE["evals"] if more else ()), tag] if part == "evals" else tag
    with pytest.raises(ConfigError):
        from_json(json.dumps(RECIPE | {part: tagged}))
    assert not evil.exists()
    assert not {"evil_task", "evil_package", "antigravity"} & set(sys.modules)


def test_a_recipe_file_names_trusted_modules(evil, tmp_path, monkeypatch):
    text = json.dumps(RECIPE | {"task": "evil_task:X"})
    with pytest.raises(ConfigError, match=r"set VCREG_MODULES=evil_task in the environment, or import it first"):
        from_json(text)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(text)
    with pytest.raises(VCRegError, match="VCREG_MODULES"):
        RunDir(tmp_path / "run").recipe()
    assert not evil.exists()
    monkeypatch.setenv("VCREG_MODULES", "other, evil_task")
    with pytest.raises(ConfigError, match="evil_task:X cannot be had"):
        from_json(text)
    assert evil.exists(), "trusted, so imported"


def test_code_of_a_repo_is_never_run(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "repo").mkdir()
    for name in ("configuration_x", "modeling_x"):
        (tmp_path / "repo" / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\nclass X: pass\n")
    auto = {"AutoConfig": "configuration_x.X", "AutoModelForImageClassification": "modeling_x.X"}
    write_json(tmp_path / "repo" / "config.json", {"model_type": "x", "auto_map": auto})
    for look in (load_config, lambda source: build_on_meta(f"hf:{source}")):
        with pytest.raises((VCRegError, ValueError)):
            look(str(tmp_path / "repo"))
    kernel = {"model_type": "vit", "attn_implementation": "owner/kernel", "_attn_implementation": "owner/kernel"}
    write_json(tmp_path / "repo" / "config.json", kernel)
    try:
        assert "/" not in str(load_config(str(tmp_path / "repo"))._attn_implementation)
    except ConfigError as error:
        assert "never run" in str(error)
    # A class by name: of transformers' networks alone, not whatever else it has by that name.
    write_json(tmp_path / "repo" / "config.json", {"model_type": "vit", "architectures": ["Trainer"]})
    assert type(build_on_meta(f"hf:{tmp_path / 'repo'}")).__name__ == "ViTForImageClassification"
    assert not ran.exists()


# ---- what commands do -----------------------------------------------------------------------------------------------

TINY = ["--set", "model.name=test_resnet", "--set", "train.epochs=1", "--set", "evals=classification"]
# Command -> its name in SECURITY.md, its arguments, the folders it names; in the folder where the commands are run.
COMMANDS: list[tuple[str, list[str], list[str]]] = [
    ("recipes", ["recipes"], []),
    ("recipes", ["recipes", "digits:convnext_atto"], []),
    ("env", ["env"], []),
    ("list", ["list"], []),
    ("blocks", ["blocks", "test_resnet"], []),
    ("data", ["data"], []),
    ("data", ["data", "digits"], []),
    ("data", ["data", "folder", "--root", "photos"], []),
    ("card", ["card", "resnet32_cifar_vcreg"], []),
    ("verify", ["verify", "resnet32_cifar_vcreg"], []),
    ("download", ["download", "resnet32_cifar_vcreg", "--to", "copy"], ["copy"]),
    ("train", ["train", "digits:convnext_atto_vcreg", "--dry-run", *TINY], []),
    ("train", ["train", "digits:convnext_atto_vcreg", "--no-bar", "--out", "study/a", *TINY], ["study/a"]),
    ("eval", ["eval", "study/a"], []),
    ("eval", ["eval", "study/a", "--save"], ["study/a"]),
    ("report", ["report", "study/a"], []),
    ("report", ["report", "study/a", "--out", "told", "--html"], ["told"]),
    ("predict", ["predict", "study/a", "photos"], []),
    ("predict", ["predict", "study/a", "photos", "--to", "tables/p.csv"], ["tables"]),
    ("features", ["features", "study/a", "photos", "--to", "arrays/f.safetensors"], ["arrays"]),
    ("export", ["export", "made-run", "--to", "out", "--licence", "apache-2.0"], ["out"]),
    ("import", ["import", "made/model.safetensors", "--model", "test_resnet", "--out", "imported"], ["imported"]),
    ("card", ["card", "out"], []),
    ("card", ["card", "out", "--repo", "me/x", "--write"], ["out"]),
    ("publish", ["publish", "out", "--repo", "me/x"], []),
    ("publish", ["publish", "made-run", "--repo", "me/x", "--licence", "apache-2.0", "--tag", "v1", "--yes"], []),
    ("publish", ["publish", "made-run", "--repo", "me/x", "--licence", "apache-2.0"], []),
    ("download", ["download", "me/x", "--to", "fetched"], ["fetched"]),
    ("verify", ["verify", "fetched"], []),
    ("predict", ["predict", "hf-hub:me/x", "photos"], []),
    ("sweep", ["sweep", "digits:convnext_atto_vcreg", "--out", "sweep", "--seeds", "1", *TINY], ["sweep"]),
    ("reproduce", ["reproduce", "table1", "--dry-run"], []),
    ("bench", ["bench", "logreg", "--data", "digits", "--samples", "50", "--width", "8", "--count", "2",
               "--out", "bench/b.json"], ["bench"]),
]  # fmt: skip
# Of every command, below the home folder.
CACHES = (".cache", ".config/matplotlib")
# Of Python's own and of the system, which keep nothing.
SYSTEM = ("/dev/null", "/dev/tty", "/dev/shm/", "/proc/self/", "/proc/thread-self/", "memfd:")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """All commands in a tree that is watched: [(name, arguments, folders, what was noted)], and the folders."""
    top = tmp_path_factory.mktemp("watched").resolve()
    for name in ("home", "work/photos/a", "work/photos/b", "temporary", "site"):
        (top / name).mkdir(parents=True)
    for number, kind in enumerate("aabb"):
        Image.new("RGB", (32, 32), (number * 60, 9, 9)).save(top / "work/photos" / kind / f"{number}.png")
    make_loadable(top / "work" / "made")  # the run folder made-run, and its export
    (top / "site" / "sitecustomize.py").write_text(SITE)
    write_json(top / "commands.json", [[str(i), arguments] for i, (_, arguments, _) in enumerate(COMMANDS)])
    log = top / "log"
    log.touch()
    with Loopback() as hub:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VCREG_", "XDG_"))}
        kept = {name: value for name, value in kept.items() if not name.startswith(("MPL", "TORCH"))}
        environment = {
            "HOME": str(top / "home"),
            "TMPDIR": str(top / "temporary"),
            "WATCHED_LOG": str(log),
            "PYTHONPATH": os.pathsep.join([str(top / "site"), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "VCREG_THREADS": "1",
            "VCREG_HUB_NAMESPACE": "me",
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
            "HF_HUB_DISABLE_XET": "1",
            "MPLBACKEND": "Agg",
        }
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "watched.py"), str(top / "commands.json"), str(log)],
            cwd=top / "work", env=kept | environment, capture_output=True, text=True, timeout=800,
        )  # fmt: skip
        port = hub.url.rpartition(":")[2]
    assert done.returncode == 0, done.stderr[-3000:]
    noted, current = defaultdict(list), None
    for line in log.read_text(encoding="utf-8").splitlines():
        kind, _, what = line.partition("\t")
        what = ast.literal_eval(what)
        if kind == "command":
            current = what
        else:
            noted[current].append((kind, what))
    return [(*command, noted[str(i)]) for i, command in enumerate(COMMANDS)], noted[None] + noted[""], top, port


def of(noted, *kinds):
    return [what for kind, what in noted if kind in kinds]


def rows():
    """Command -> its cells, of the table of SECURITY.md."""
    table = TEXT.partition("| command | reads |")[2]
    return {name: cells.split(" | ") for name, cells in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M)}


@pytest.mark.timeout(900)
def test_every_command_runs_in_the_watched_tree(watched):
    commands, _, _, _ = watched
    for _, arguments, _, noted in commands:
        assert of(noted, "failed") == [], arguments
    from vcreg_hub.cli import app

    there = {command.name or command.callback.__name__.strip("_") for command in app.registered_commands}
    there |= {group.name or group.typer_instance.info.name for group in app.registered_groups}
    assert set(rows()) == there == {name for name, *_ in COMMANDS}


def test_a_command_writes_where_it_says(watched):
    commands, beside, top, _ = watched
    for name, arguments, folders, noted in [*commands, ("", [], [], beside)]:
        allowed = (
            [top / "work" / folder for folder in folders]
            + [top / "home" / place for place in CACHES]
            + [top / "temporary"]
        )
        for path in map(Path, of(noted, "write")):
            if str(path).startswith(SYSTEM) or path == top / "log":
                continue
            inside = any(path.is_relative_to(folder) for folder in allowed)
            # A folder on the way to one that is named is made, and a file is written beside before it takes its place.
            above = any(folder.is_relative_to(path) for folder in allowed)
            beside_it = any(str(path).startswith(f"{folder.parent}/.{folder.name}.") for folder in allowed)
            planned = name == "train" and path.parent == top / "work" / "study"
            assert inside or above or beside_it or planned, f"{arguments} wrote {path}"
    assert {path.name for path in (top / "home").iterdir()} <= {".cache", ".config"}
    assert {path.name for path in (top / "home").glob(".config/*")} <= {"matplotlib"}
    # What torch compiles, it keeps.
    assert {path.name.partition("_")[0] for path in (top / "temporary").iterdir()} <= {"torchinductor"}
    named = {Path(folder).parts[0] for _, _, folders in COMMANDS for folder in folders}
    assert {path.name for path in (top / "work").iterdir()} == named | {"photos", "made", "made-run"}


def test_what_security_says_of_writing_is_what_is_watched():
    for name, (_, writes, _) in rows().items():
        wrote = any(folders for command, _, folders in COMMANDS if command == name)
        if wrote:
            assert writes != "nothing", name
        for option in re.findall(r"`(--\w+)`", writes):
            told = [arguments for command, arguments, _ in COMMANDS if command == name and option in arguments]
            assert told or (name, option) in {("data", "--out"), ("reproduce", "--out")}, f"{name} {option} is not run"


def test_a_command_contacts_whom_it_says(watched):
    commands, beside, _, port = watched
    for name, arguments, _, noted in commands:
        connected = set(of(noted, "connect", "sendto"))
        assert connected <= {f"127.0.0.1 {port}"}, arguments
        if connected:
            assert rows()[name][2].startswith("a hub"), f"{arguments} contacts a hub"
        if name not in ("publish", "list", "download") and "hf-hub:me/x" not in arguments:
            assert connected == set(), f"{arguments}: nothing on a hub was named"
    assert of(beside, "connect", "sendto") == []
    assert any(of(noted, "connect") for name, _, _, noted in commands if name == "publish"), "the watch sees it"


def test_nothing_listens(watched):
    commands, beside, _, _ = watched
    for _, arguments, _, noted in commands:
        assert of(noted, "listen", "bind") == [], arguments
    assert of(beside, "listen", "bind") == []
    for path, function, _ in calls():
        assert not function.endswith(("socket.listen", "socket.bind", "create_server", "start_server", "HTTPServer")), (
            path
        )


def test_the_watch_sees_what_it_is_for(tmp_path):
    """A process that does all of it is noted, in a child too."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    (tmp_path / "inner").mkdir()
    program = (
        "import os, pathlib, shutil, socket, subprocess, sys\n"
        "pathlib.Path('a').write_text('x'); os.rename('a', 'b'); os.mkdir('c'); os.symlink('b', 'd')\n"
        "shutil.rmtree('inner')\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "if len(sys.argv) == 1: subprocess.run([sys.executable, '-c', \"open('child', 'w')\"])\n"
    )
    environment = {"WATCHED_LOG": str(tmp_path / "log"), "PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    for name in ("a", "b", "c", "d", "inner", "child"):
        assert f"write\t{str(tmp_path.resolve() / name)!r}" in lines, name
    assert any(line.startswith("bind\t") for line in lines)


def test_every_claim_names_tests_that_are_there():
    claims = re.findall(
        r"^\| (?!claim|---)([A-Z][^|]*) \| [^|]* \| ([^|]*) \|$", TEXT.partition("## What each")[0], re.M
    )
    assert len(claims) == 9
    for claim, tests in claims:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert named, claim
        for path, test in named:
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), test


def test_reports_are_private_and_no_address_is_invented():
    assert "private vulnerability reporting" in TEXT
    assert not re.search(r"[\w.]+@[\w.]+\.\w+", TEXT)
