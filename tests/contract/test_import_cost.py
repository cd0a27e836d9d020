"""What the front door costs: `import vcreg_hub`, help, lists and refusals load neither torch nor timm."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import vcreg_hub

PACKAGE = Path(vcreg_hub.__file__).parent
HEAVY = ("accelerate", "av", "datasets", "matplotlib", "numpy", "pandas", "sklearn", "timm", "torch", "transformers")
HUB = ("huggingface_hub",)
NAMES = {"resnet50_vcreg", "convnext_tiny_vcreg", "resnet32_cifar_vcreg", "vit_base_patch32_224_vcreg"}
COMMAND = "import sys; sys.argv = ['vcreg', *{arguments!r}]; from vcreg_hub.cli import main; main()"


def run(program: str) -> tuple[int, str, set[str], float]:
    """Exit code, what was printed, the modules that were loaded, and the seconds it took of a program of its own."""
    watch = (
        "import atexit, json, sys, time; start = time.process_time()\n"
        "atexit.register(lambda: print('\\n' + json.dumps([sorted(sys.modules), time.process_time() - start])))\n"
    )
    done = subprocess.run([sys.executable, "-c", watch + program], capture_output=True, text=True, timeout=120)
    *printed, told = done.stdout.rstrip().splitlines()
    modules, seconds = json.loads(told)
    return done.returncode, "\n".join(printed) + done.stderr, {name.partition(".")[0] for name in modules}, seconds


def test_the_package_alone():
    program = "import sys; before = len(sys.modules); import vcreg_hub; print(len(sys.modules) - before)"
    code, printed, modules, seconds = run(program)
    assert code == 0, printed
    assert not modules & {*HEAVY, *HUB}
    assert int(printed) < 200 and seconds < 0.3


def test_settings_and_errors_need_no_torch():
    code, printed, modules, _ = run(
        "import vcreg_hub as v; print(v.VCReg(alpha=1), v.VCRegError, v.__version__, dir(v))"
    )
    assert code == 0 and "alpha=1" in printed
    assert not modules & {*HEAVY, *HUB}


@pytest.mark.parametrize(
    "program",
    [
        "import vcreg_hub, timm",
        "import timm, vcreg_hub",
        "import vcreg_hub; from timm import create_model; import timm",
        "import vcreg_hub; from timm.models import list_models; import timm",
        "import timm; import vcreg_hub.models.cifar",
        "import vcreg_hub.models.cifar; import timm",  # our file is still being imported when timm is there
        "import vcreg_hub.models.zoo; import timm",
        "from vcreg_hub import create_image_model; import timm",
        "from vcreg_hub import register_model; import timm",
    ],
)
def test_the_names_register_in_any_order(program):
    code, printed, _, _ = run(f"{program}\nprint(*timm.list_models('*_vcreg'), timm.is_model('resnet50_vcreg'))")
    assert code == 0, printed
    assert set(printed.split()) >= {*NAMES, "True"}


def test_what_the_names_need_is_whole_when_timm_is():
    """timm may be imported first by any of our files; registering the names must not ask for one that is half done.

    Files of models/ are imported after its `__init__`, which imports timm. The others that zoo.py imports may not.
    """
    assert "import timm" in (PACKAGE / "models" / "__init__.py").read_text(encoding="utf-8")
    todo, seen = [PACKAGE / "models" / "zoo.py"], set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            outside = PACKAGE / "models" not in path.parents
            if isinstance(node, ast.Import) and outside:
                assert not any(alias.name.startswith("timm") for alias in node.names), path
            if not isinstance(node, ast.ImportFrom):
                continue
            if not node.level:
                assert not (outside and node.module.startswith("timm")), path
                continue
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            found = [folder.with_suffix(".py"), folder / "__init__.py", *(folder / f"{a.name}.py" for a in node.names)]
            todo += [each for each in found if each.is_file()]
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--help"], 0, "train"),
        (["train", "--help"], 0, "--set"),
        (["recipes"], 0, "Table 1"),
        (["recipes", "--json"], 0, "noise:videomae_small_vcreg"),
        (["reproduce"], 0, "fashion_mnist"),
        (["--version"], 0, "vcreg 0."),
        (["recipes", "digits:convnext_atto_vcreg"], 0, "weight of the variance loss"),
        (["data", "--json"], 0, "fashion_mnist"),
        (
            ["sweep", "digits:convnext_atto_vcreg", "--out", "x", "--search", "random", "--space", "vcreg.alpha=2..1"],
            2,
            "LOW",
        ),
        (["trian"], 2, "train"),
        (["train", "digits:convnext_atto", "--nosuch"], 2, "nosuch"),
        (["train", "digit:convnext_atto"], 2, "did you mean"),
        (["train", "nothing.json"], 2, "there is no recipe file"),
        (["train", "digits:convnext_atto", "--set", "train.epoch=1"], 2, "did you mean 'train.epochs'"),
        (["train", "digits:convnext_atto", "--set", "train.epochs=many"], 2, "a whole number"),
        (["train", "digits:convnext_atto_vcreg", "--set", "vcreg.alpha=-1"], 2, "vcreg.alpha"),
        (["train", "digits:convnext_atto", "--set", "data.name=digitz"], 2, "did you mean 'digits'"),
        (["train", "digits:convnext_atto", "--set", "model.name=convnext_ato"], 2, "did you mean 'convnext_atto'"),
        (["train", "digits:convnext_atto", "--tracker", "tensorbord"], 2, "did you mean 'tensorboard'"),
        (["train", "digits:convnext_atto", "--tracker", "aim"], 2, "not installed: pip install aim"),
        (
            ["train", "digits:convnext_atto", "--set", "optim.momentum=5"],
            2,
            "optim.momentum is a number from 0 to below 1",
        ),
        (["train", "digits:convnext_atto", "--set", "optim.min_lr=1"], 2, "optim.min_lr is from 0 to optim.lr=0.002"),
        (["train", "digits:convnext_atto", "--set", "model.kwargs.drop_path_rate=7"], 2, "is a probability from 0"),
        (
            ["train", "fashion_mnist:class_incremental", "--set", "train.class_groups=2"],
            2,
            "evals.incremental.groups is",
        ),
        (
            ["features", "resnet32_cifar_vcreg", "digits", "--to", "x.npy", "--output", "poold"],
            2,
            "did you mean 'pooled'",
        ),
        (["blocks", "resnet5"], 2, "unknown timm architecture 'resnet5'; did you mean"),
        (["data", "digitz"], 2, "did you mean 'digits'"),
        (["eval", "no/such/run"], 1, "not a complete run"),
        (["eval", "resnet5", "--suite", "knn"], 2, "did you mean"),
        (["predict", "resnet5", "x.png"], 2, "did you mean"),
        (["features", "resnet5", "digits", "--to", "x.npy"], 2, "did you mean"),
        (["sweep", "digit:convnext_atto", "--out", "x"], 2, "did you mean"),
        (["sweep", "digits:convnext_atto", "--out", "x", "--grid", "train.epoch=1"], 2, "did you mean"),
        (["train", "zzzz:qqqq"], 2, "`vcreg recipes` lists them"),
        (["predict", "resnet32_cifar_vcreg", "no/such/photos"], 2, "there is no file or folder"),
        (["predict", "resnet32_cifar_vcreg", "tests", "--to", "x.txt"], 2, "expected a name that ends in .csv"),
        (["features", "resnet32_cifar_vcreg", "digitz", "--to", "x.npy"], 2, "did you mean 'digits'"),
        (["features", "resnet32_cifar_vcreg", "no/such/photos", "--to", "x.npy"], 2, "there is no file or folder"),
        (
            ["features", "resnet32_cifar_vcreg", "tests", "--to", "x.txt"],
            2,
            "expected a name that ends in .safetensors",
        ),
        (["features", "resnet32_cifar_vcreg", "digits", "--to", "tests"], 2, "expected a name that ends in"),
        (["reproduce", "fashion"], 2, "fashion_mnist"),
        (["export", "x", "--to", "y", "--licence", "nosuch"], 2, "unknown licence"),
        (["export", "x", "--to", "y", "--licence", "mit"], 2, "there is no file or folder"),
        (["publish", "x", "--repo", "a/b"], 2, "there is no file or folder"),
    ],
)
def test_help_lists_and_refusals_are_quick(arguments, code, part):
    got, printed, modules, seconds = run(COMMAND.format(arguments=arguments))
    assert got == code, printed
    assert part in printed
    assert not modules & set(HEAVY), sorted(modules & set(HEAVY))
    assert seconds < 1


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["publish", "x", "--repo", "bad"]])
def test_the_hub_needs_its_own_library_only(arguments, monkeypatch):
    monkeypatch.setenv("VCREG_HUB_NAMESPACE", "me")
    _, printed, modules, _ = run(COMMAND.format(arguments=arguments))
    assert "Traceback" not in printed
    assert not modules & set(HEAVY), sorted(modules & set(HEAVY))


def test_the_threads_of_a_run_are_set_when_torch_comes(monkeypatch):
    monkeypatch.setenv("VCREG_THREADS", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    program = COMMAND.format(arguments=["env"])
    code, printed, modules, _ = run(program)
    assert code == 0 and "torch" in modules and '"threads": 1,' in printed
    assert "torch" not in run(COMMAND.format(arguments=["--help"]))[2]
