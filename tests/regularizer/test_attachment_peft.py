"""LoRA by peft on a timm and a transformers ViT: adapters get the explicit loss's gradient, their files are peft's."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from small_models import EXACT, STRONG, distance, explicit_penalty, gradients, transformers_vit
from torch.nn import functional as F

from vcreg_hub.placement.sites import find_blocks
from vcreg_hub.regularizer.attachment import attach

peft = pytest.importorskip("peft")


def timm_vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=3, img_size=16)


# A model, the layers that LoRA adapts, its classifier.
MODELS = {
    "timm": (timm_vit, ["qkv", "fc1"], "head"),
    "transformers": (transformers_vit, ["q_proj", "v_proj", "query", "value"], "classifier"),
}


def adapted(model, name, classifier):
    _, layers, head = MODELS[name]
    torch.manual_seed(1)
    save = [head] if classifier else None
    config = peft.LoraConfig(r=2, target_modules=layers, modules_to_save=save, init_lora_weights=False)
    return peft.get_peft_model(model, config).train()


def step(model):
    g = torch.Generator().manual_seed(2)
    output = model(torch.randn(4, 3, 16, 16, generator=g, dtype=torch.float64))
    return F.cross_entropy(getattr(output, "logits", output), torch.tensor([0, 1, 2, 1]))


# peft asks transformers for a property by its former name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("where", ["blocks", "final"])
@pytest.mark.parametrize("classifier", [True, False], ids=["trained classifier", "frozen classifier"])
@pytest.mark.parametrize("attach_first", [True, False], ids=["attached before", "attached after"])
def test_lora(name, where, classifier, attach_first, tmp_path):
    make = MODELS[name][0]
    twin = adapted(make().double(), name, classifier)
    with explicit_penalty(find_blocks(twin, where), STRONG) as terms:
        (step(twin) + sum(terms)).backward()
    assert terms

    model = make().double()
    vc = attach(model, STRONG, where) if attach_first else None
    model = adapted(model, name, classifier)
    vc = vc or attach(model, STRONG, where)
    for _ in range(2):
        model.zero_grad()
        (vc.watch(step(model)) * 0.25).backward()
        assert distance(gradients(model), gradients(twin) * 0.25) < EXACT

    files = []
    for network, folder in ((model, "with"), (twin, "without")):
        network.save_pretrained(tmp_path / folder)
        files.append({path.name: path.read_bytes() for path in Path(tmp_path / folder).iterdir()})
    assert files[0] == files[1] and "adapter_model.safetensors" in files[0]
