"""What was published, in a process that cannot import vcreg_hub, over HTTP and with nothing in its cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from hub.folders import make_loadable

from vcreg_hub.files import write_json, write_tensors
from vcreg_hub.hub.publish import publish
from vcreg_hub.models.build import load_network
from vcreg_hub.models.outputs import logits

# huggingface_hub 2.4 hands its upload stream to httpx2 by a name that httpx2 wants otherwise (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")

STRANGER = """
import json, re, sys
sys.modules["vcreg_hub"] = None
from safetensors.torch import load_file
from huggingface_hub import hf_hub_download
import torch
torch.set_num_threads(1)
saved, answers = load_file(sys.argv[1]), {}
for repo, kind in json.loads(sys.argv[2]).items():
    names = {}
    with open(hf_hub_download(repo, "README.md")) as card:
        snippets = re.findall(r"```python\\n(.*?)\\n```", card.read(), re.DOTALL)
    for snippet in snippets[:1]:
        exec(snippet, names)
    x = saved[kind + ".x"]
    with torch.no_grad():
        found = names["model"](x)
    answers[repo] = {"card": getattr(found, "logits", found).tolist()}
    with torch.no_grad():
        if kind == "timm":
            import timm, transformers
            pinned = timm.create_model(f"hf-hub:{repo}@v1", pretrained=True).eval()
            answers[repo]["pinned"] = pinned(x).tolist()
            wrapped = transformers.AutoModelForImageClassification.from_pretrained(repo, revision="v1").eval()
            answers[repo]["wrapped"] = wrapped(x).logits.tolist()
        else:
            pinned = type(names["model"]).from_pretrained(repo, revision="v1").eval()
            answers[repo]["pinned"] = pinned(x).logits.tolist()
print(json.dumps(answers))
"""


def strange(hub, root, names):
    """Publish a network of each kind, load them all in one such process, and compare with the folders' own logits."""
    saved, expected = {}, {}
    for kind, name in names.items():
        repo = f"me/{kind}_vcreg.fashion_mnist"
        folder = make_loadable(root / kind, name, repo_id=repo)
        publish(folder, repo, api=hub, tag="v1")
        shape = (2, 8, 3, 32, 32) if kind == "video" else (2, 3, 32, 32)
        saved[f"{kind}.x"] = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected[repo] = logits(load_network(folder)(saved[f"{kind}.x"]))
    write_tensors(root / "saved.safetensors", saved)
    asked = json.dumps({f"me/{kind}_vcreg.fashion_mnist": kind for kind in names})
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VCREG_"))}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(root / "saved.safetensors"), asked],
        env=kept | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(root / "home")},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert set(answers) == set(expected)
    for repo, found in answers.items():
        for how, values in found.items():
            torch.testing.assert_close(torch.tensor(values), expected[repo], rtol=1e-5, atol=1e-7, msg=f"{repo} {how}")
    return answers


def test_images_load_in_plain_timm_and_plain_transformers(api, tmp_path):
    config = {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 8}
    write_json(tmp_path / "resnet" / "config.json", config)
    answers = strange(api, tmp_path, {"timm": "test_resnet", "native": f"hf:{tmp_path / 'resnet'}"})
    assert set(answers["me/timm_vcreg.fashion_mnist"]) == {"card", "pinned", "wrapped"}
    assert set(answers["me/native_vcreg.fashion_mnist"]) == {"card", "pinned"}


@pytest.mark.slow
def test_video_loads_in_plain_transformers(api, tmp_path):
    strange(api, tmp_path, {"video": "videomae_tiny"})
