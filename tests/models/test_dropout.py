"""Stochastic depth and head dropout: what they drop, and what they leave alone."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch import nn

from vcreg_hub.errors import ConfigError, UsageError
from vcreg_hub.models.dropout import BRANCHES, DroppingLinear, set_head_dropout, set_stochastic_depth
from vcreg_hub.models.video import build_video_model
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg

NAMES = ("videomae_tiny", "vivit_tiny")
CLIP = (8, 3, 32, 32)


def model_of(name: str, **options: float) -> nn.Module:
    torch.manual_seed(0)
    return build_video_model(name, 5, num_hidden_layers=4, **options)


def blocks(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module).__name__ in BRANCHES]


@pytest.mark.parametrize("name", NAMES)
def test_rates_grow_linearly_from_zero(name: str) -> None:
    model = model_of(name)
    assert set_stochastic_depth(model, 0.3) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert len(blocks(model)) == 4


@pytest.mark.parametrize("name", NAMES)
def test_each_branch_of_each_sample_is_dropped_or_scaled(name: str) -> None:
    """Against the block written out by hand: x + a, then + b, each branch gone or divided by what is kept."""
    model = model_of(name)
    set_stochastic_depth(model, 0.4)
    block = blocks(model)[-1]
    x = torch.randn(1, 6, 96).repeat(400, 1, 1)

    def attention(h: torch.Tensor) -> torch.Tensor:
        out = block.attention(block.layernorm_before(h))
        return out[0] if isinstance(out, tuple) else out

    def mlp(h: torch.Tensor) -> torch.Tensor:
        h = block.layernorm_after(h)
        return block.mlp(h) if hasattr(block, "mlp") else block.output.dense(block.intermediate(h))

    with torch.no_grad():
        done = block.train()(x, None) if name.startswith("vivit") else block.train()(x)
        block.eval()
        wanted = {}
        for first in (0, 1):
            middle = x[:1] + first * attention(x[:1]) / 0.6
            for second in (0, 1):
                wanted[first, second] = middle + second * mlp(middle) / 0.6
    counts = {key: sum(torch.allclose(one, value[0], atol=1e-4) for one in done) for key, value in wanted.items()}
    assert sum(counts.values()) == 400, "every sample is one of the four"
    kept_first = counts[1, 0] + counts[1, 1]
    kept_second = counts[0, 1] + counts[1, 1]
    assert 190 < kept_first < 290 and 190 < kept_second < 290
    assert 0 < counts[1, 0] < kept_first, "the two branches are dropped apart"


@pytest.mark.parametrize("name", NAMES)
def test_names_evaluation_copies_and_pickles_are_those_of_the_plain_model(name: str) -> None:
    plain, dropping = model_of(name), model_of(name, drop_path=0.5, head_dropout=0.5)
    assert list(plain.state_dict()) == list(dropping.state_dict())
    assert [n for n, _ in plain.named_modules()] == [n for n, _ in dropping.named_modules()]
    clips = torch.randn(2, *CLIP)
    with torch.no_grad():
        assert torch.equal(plain.eval()(clips).logits, dropping.eval()(clips).logits)
        dropping.train()
        torch.manual_seed(1)
        once = dropping(clips).logits
        assert not torch.allclose(once, plain(clips).logits, atol=1e-3)
        buffer = io.BytesIO()
        torch.save(dropping, buffer)
        buffer.seek(0)
        for twin in (copy.deepcopy(dropping), torch.load(buffer, weights_only=False)):
            torch.manual_seed(1)
            assert torch.equal(twin(clips).logits, once)
            set_stochastic_depth(twin, 0.0)
            assert not any(m._forward_hooks for m in twin.modules()), "a copy can be changed like the original"
        assert any(m._forward_hooks for m in dropping.modules())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_repeats_the_same_drops(name: str, reentrant: bool) -> None:
    plain, saving = (model_of(name, drop_path=0.5, head_dropout=0.3) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its new name is in the newest transformers only
        saving.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    clips = torch.randn(3, *CLIP, requires_grad=True)
    for model in (plain, saving):
        torch.manual_seed(2)
        model(clips).logits.square().sum().backward()
    for (key, one), two in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-6), key


def test_saved_by_transformers_as_if_nothing_were_there(tmp_path) -> None:
    from transformers import AutoModelForVideoClassification

    model = model_of("videomae_tiny", drop_path=0.5, head_dropout=0.5).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert type(loaded.classifier) is nn.Linear
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_head_dropout_drops_its_share_and_the_regularizer_sees_all() -> None:
    model = model_of("videomae_tiny", head_dropout=0.75)
    assert isinstance(model.classifier, DroppingLinear)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.eye(5, 96))
        model.classifier.bias.zero_()
    seen = []
    model.classifier.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    ones = torch.ones(2000, 96)
    out = model.classifier(ones)
    assert set(out.unique().tolist()) == {0.0, 4.0} and 0.2 < (out > 0).float().mean() < 0.3
    assert torch.equal(seen[0], ones)


def test_repeating_a_setting_replaces_it() -> None:
    model = model_of("vivit_tiny", drop_path=0.5)
    set_stochastic_depth(model, 0.2)
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    assert sorted(hook.rate for hook in hooks) == pytest.approx([0.2 / 3, 0.4 / 3, 0.2])


def test_what_cannot_be() -> None:
    model = model_of("videomae_tiny")
    with pytest.raises(ConfigError, match=r"drop_path=1\.0"):
        set_stochastic_depth(model, 1.0)
    with pytest.raises(ConfigError, match=r"head_dropout=-0\.1"):
        set_head_dropout(model, -0.1)
    with pytest.raises(UsageError, match="VideoMAELayer"):
        set_stochastic_depth(nn.Linear(2, 2), 0.1)
    with pytest.raises(UsageError, match="fc_norm is a LayerNorm"):
        set_head_dropout(model, 0.1, head="fc_norm")
    attach(model, VCReg(), "final", example_input=torch.zeros(1, *CLIP))
    with pytest.raises(UsageError, match="before attaching"):
        set_head_dropout(model, 0.1)
