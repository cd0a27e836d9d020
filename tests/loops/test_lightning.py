"""Lightning's Trainer with VCRegLightningCallback, against the explicit loss."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from small_models import EXACT, STRONG, Map, Tokens, distance, explicit_gradients, gradients, network, sites_of
from torch.nn import functional as F
from torch.utils.data import DataLoader

lightning = pytest.importorskip("lightning")

from vcreg_hub.errors import AttachError, UsageError  # noqa: E402
from vcreg_hub.loops import VCRegLightningCallback  # noqa: E402
from vcreg_hub.regularizer.attachment import attach  # noqa: E402

# Lightning's own: of few workers, short epochs, an absent logger; and what its imports bring.
pytestmark = pytest.mark.filterwarnings("ignore")


class Classifier(lightning.LightningModule):
    """as_dict: what training_step returns; skipped: the batch that it returns None for."""

    def __init__(self, as_dict=False, skipped=None, block=Tokens):
        super().__init__()
        self.net = network(block)
        self.as_dict, self.skipped, self.stepped = as_dict, skipped, []

    def training_step(self, batch, index):
        if index == self.skipped:
            return None
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        return {"loss": loss, "seen": len(x)} if self.as_dict else loss

    def on_before_optimizer_step(self, optimizer):
        self.stepped.append(gradients(self.net).clone())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def batches(block=Tokens):
    return [network(block).batch(seed=i) for i in range(4)]


def fit(module, accumulate, callback, **kwargs):
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", accumulate_grad_batches=accumulate, callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **kwargs,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches(type(module.net.blocks[0])), batch_size=None))
    return trainer


def compare(module, accumulate, bound=EXACT, skipped=None, block=Tokens):
    twin, data = network(block), batches(block)
    groups = [data[i : i + accumulate] for i in range(0, len(data), accumulate)]
    assert len(module.stepped) == len(groups)
    for k, (group, got) in enumerate(zip(groups, module.stepped, strict=True)):
        twin.zero_grad()
        for i, batch in enumerate(group):
            if skipped != k * accumulate + i:
                explicit_gradients(twin, sites_of(twin), batch, scale=1 / accumulate)
        assert distance(got, gradients(twin)) < bound


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("as_dict", [False, True])
def test_accumulation(accumulate, as_dict):
    module = Classifier(as_dict)
    attach(module.net, STRONG, sites=sites_of(module.net))
    fit(module, accumulate, VCRegLightningCallback())
    compare(module, accumulate)
    assert "training_step" not in vars(module) and "vcreg" in vars(module.net)


def test_a_regularizer_that_the_callback_attaches():
    module = Classifier(block=Map)
    fit(module, 2, VCRegLightningCallback(STRONG, network="net"))
    compare(module, 2, block=Map)
    assert "training_step" not in vars(module) and "vcreg" not in vars(module.net)


def test_half_precision():
    module = Classifier()
    module.net.float()
    attach(module.net, STRONG, sites=sites_of(module.net))
    trainer_batches = DataLoader([(x.float(), y) for x, y in batches()], batch_size=None)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", accumulate_grad_batches=2, callbacks=[VCRegLightningCallback()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, precision="bf16-mixed",
    )  # fmt: skip
    trainer.fit(module, trainer_batches)
    module.stepped = [got.double() for got in module.stepped]
    compare(module, 2, bound=3e-2)


def test_a_grad_scaler_as_with_float16():
    """Lightning takes precision="16-mixed" on a GPU alone; its plugin with a GradScaler of the CPU does the same."""
    from lightning.pytorch.plugins.precision import MixedPrecision

    module = Classifier()
    attach(module.net, STRONG, sites=sites_of(module.net))
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    plugin.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)
    fit(module, 2, VCRegLightningCallback(), plugins=[plugin])
    compare(module, 2)  # Lightning unscales before on_before_optimizer_step


def test_a_skipped_step():
    module = Classifier(skipped=1)
    attach(module.net, STRONG, sites=sites_of(module.net))
    fit(module, 2, VCRegLightningCallback())
    compare(module, 2, skipped=1)


def test_an_error_leaves_the_module_as_it_was():
    class Fails(Classifier):
        def training_step(self, batch, index):
            raise RuntimeError("out of memory")

    module = Fails()
    attach(module.net, STRONG, sites=sites_of(module.net))
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(module, 1, VCRegLightningCallback())
    assert "training_step" not in vars(module)


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(AttachError, match=r"nothing within Classifier has VCReg.*network='model'"):
        fit(Classifier(), 1, VCRegLightningCallback())
    with pytest.raises(UsageError, match=r"no submodule 'model'.*'net'"):
        fit(Classifier(), 1, VCRegLightningCallback(STRONG))

    class ByHand(Classifier):
        automatic_optimization = False

    with pytest.raises(UsageError, match=r"by hand.*network\.vcreg\.watch\(loss\) in training_step"):
        fit(ByHand(), 1, VCRegLightningCallback())


@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
def test_both_names_of_lightning_serve(name):
    ours = "from vcreg_hub.loops import VCRegLightningCallback"
    program = f"import {name} as pl\n{ours}\nprint(issubclass(VCRegLightningCallback, pl.Callback))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr


def test_without_lightning_the_extra_is_named():
    program = (
        "import sys; sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None\n"
        "try:\n    from vcreg_hub.loops import VCRegLightningCallback\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "vcreg_hub[lightning]" in done.stdout and done.stdout.startswith("UsageError"), done.stdout + done.stderr
