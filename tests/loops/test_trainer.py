"""transformers' Trainer with VCRegTrainerCallback, against the explicit loss added to each batch's own.

The Trainer is untouched; a callback keeps the gradients of each of its steps. The reference repeats its batches.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from small_models import STRONG, distance, explicit_penalty, gradients, transformers_vit
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother

from vcreg_hub.errors import AttachError
from vcreg_hub.loops import VCRegTrainerCallback
from vcreg_hub.placement.sites import find_blocks
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg

# The Trainer's own warnings: of the learning rate's scheduler, of pinned memory.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SMOOTHING = 0.2


def data(images=10):
    """Ten images in batches of four: with accumulation the last step's batches have unequal sizes."""
    g = torch.Generator().manual_seed(0)
    return [
        {"pixel_values": torch.randn(3, 16, 16, generator=g), "labels": int(torch.randint(3, (), generator=g))}
        for _ in range(images)
    ]


class Record(TrainerCallback):
    """The gradients of every step, and the batches that the model was fed."""

    def __init__(self, model):
        self.model, self.fed, self.stepped = model, [], []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.stepped.append(gradients(self.model).clone())


class KeepsLabels(Trainer):
    """A Trainer that notes each batch, labels too."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.fed.append({key: value.clone() for key, value in inputs.items()})
        return super().training_step(model, inputs, num_items_in_batch)


def trainer_of(model, tmp_path, accumulation=1, callbacks=(), kind=KeepsLabels, compute_loss_func=None, **arguments):
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=accumulation,
        num_train_epochs=1, learning_rate=0.0, max_grad_norm=0.0, report_to="none", save_strategy="no", use_cpu=True,
        disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False, **arguments,
    )  # fmt: skip
    record = Record(model)
    trainer = kind(
        model=model, args=arguments, train_dataset=data(), eval_dataset=data(4), callbacks=[*callbacks, record],
        compute_loss_func=compute_loss_func,
    )  # fmt: skip
    trainer.fed = record.fed
    return trainer, record


def divided(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch


def mean_of_one_batch(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs["logits"], labels)


def smoothed(outputs, labels):
    return LabelSmoother(SMOOTHING)(outputs, labels)


def cross_entropy(outputs, labels):
    return F.cross_entropy(outputs["logits"], labels)


def compare(record, accumulation, mean_loss, share, scale=1.0, bound=1e-4, twin=None, autocast=None):
    """mean_loss: of one batch; share: how much of it and of the regularizer of that batch the step's loss contains."""
    twin = transformers_vit().train() if twin is None else twin
    groups = [record.fed[i : i + accumulation] for i in range(0, len(record.fed), accumulation)]
    assert len(record.stepped) == len(groups) > 0
    for group, got in zip(groups, record.stepped, strict=True):
        twin.zero_grad()
        images = sum(len(batch["labels"]) for batch in group)
        for batch in group:
            part = {"by images": len(batch["labels"]) / images, "by batches": 1 / len(group), "undivided": 1.0}[share]
            with explicit_penalty(find_blocks(twin), STRONG) as terms, torch.autocast("cpu", autocast, bool(autocast)):
                loss = mean_loss(twin(pixel_values=batch["pixel_values"]), batch["labels"])
                total = loss + sum(terms)
            (total * part * scale).backward()
        assert distance(got, gradients(twin)) < bound


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("accepts_loss_kwargs", [True, False])
def test_the_models_own_loss(tmp_path, accumulation, accepts_loss_kwargs):
    model = transformers_vit()
    model.accepts_loss_kwargs = accepts_loss_kwargs
    trainer, record = trainer_of(model, tmp_path, accumulation, [VCRegTrainerCallback(STRONG)])
    trainer.train()
    compare(record, accumulation, cross_entropy, "by images" if accepts_loss_kwargs else "by batches")
    assert "vcreg" not in vars(model) and "compute_loss" not in vars(trainer)  # all is as it was


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_label_smoothing(tmp_path, accumulation):
    callbacks = [VCRegTrainerCallback(STRONG)]
    trainer, record = trainer_of(
        transformers_vit(), tmp_path, accumulation, callbacks, label_smoothing_factor=SMOOTHING
    )
    trainer.train()
    compare(record, accumulation, smoothed, "by images")


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_a_loss_function_of_the_users(tmp_path, accumulation):
    model = transformers_vit()
    vc = attach(model, STRONG)
    trainer, record = trainer_of(model, tmp_path, accumulation, [VCRegTrainerCallback()], compute_loss_func=divided)
    trainer.train()
    compare(record, accumulation, cross_entropy, "by images")
    assert model.vcreg is vc  # an attachment of the user's stays


def test_a_loss_function_that_does_not_divide_is_told_and_exact(tmp_path):
    callbacks = [VCRegTrainerCallback(STRONG)]
    trainer, record = trainer_of(transformers_vit(), tmp_path, 2, callbacks, compute_loss_func=mean_of_one_batch)
    with pytest.warns(UserWarning, match="does not divide by num_items_in_batch") as told:
        trainer.train()
    assert len([one for one in told if "num_items_in_batch" in str(one.message)]) == 1
    compare(record, 2, cross_entropy, "undivided")


def test_a_loss_function_that_the_trainer_is_told_to_divide(tmp_path):
    callbacks = [VCRegTrainerCallback(STRONG)]
    trainer, record = trainer_of(transformers_vit(), tmp_path, 2, callbacks, compute_loss_func=mean_of_one_batch)
    if not hasattr(trainer, "loss_is_scaled_for_ga"):
        pytest.skip("this transformers cannot be told")
    trainer.loss_is_scaled_for_ga = False
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*num_items_in_batch")
        trainer.train()
    compare(record, 2, cross_entropy, "by batches")


class OwnLoss(KeepsLabels):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs["logits"], labels)
        return (loss, outputs) if return_outputs else loss


def test_an_overridden_compute_loss(tmp_path):
    trainer, record = trainer_of(transformers_vit(), tmp_path, 1, [VCRegTrainerCallback(STRONG)], kind=OwnLoss)
    trainer.train()
    compare(record, 1, cross_entropy, "by images")
    trainer, record = trainer_of(transformers_vit(), tmp_path, 2, [VCRegTrainerCallback(STRONG)], kind=OwnLoss)
    with pytest.warns(UserWarning, match=r"OwnLoss overrides compute_loss.*loss_is_scaled_for_ga"):
        trainer.train()
    trainer, record = trainer_of(transformers_vit(), tmp_path, 2, [VCRegTrainerCallback(STRONG)], kind=OwnLoss)
    trainer.loss_is_scaled_for_ga = False
    trainer.train()
    compare(record, 2, cross_entropy, "by batches")


def test_bfloat16(tmp_path):
    trainer, record = trainer_of(transformers_vit(), tmp_path, 2, [VCRegTrainerCallback(STRONG)], bf16=True)
    trainer.train()
    compare(record, 2, cross_entropy, "by images", bound=2e-2, autocast=torch.bfloat16)


def test_a_grad_scaler_as_with_float16(tmp_path):
    """accelerate takes fp16=True on a GPU alone; its GradScaler is what matters for the scale."""
    trainer, record = trainer_of(transformers_vit(), tmp_path, 2, [VCRegTrainerCallback(STRONG)])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.accelerator.scaler = scaler
    trainer.accelerator.native_amp = False
    trainer.train()
    compare(record, 2, cross_entropy, "by images", scale=1024.0)


def test_gradient_checkpointing_and_a_callback_that_is_added_later(tmp_path):
    model = transformers_vit()
    trainer, record = trainer_of(model, tmp_path, 2, gradient_checkpointing=True)
    trainer.add_callback(VCRegTrainerCallback(STRONG))
    trainer.train()
    compare(record, 2, cross_entropy, "by images")


def test_a_second_training_and_one_that_an_error_ended(tmp_path):
    class Fails(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RuntimeError("out of memory")

    model = transformers_vit()
    callback = VCRegTrainerCallback(STRONG)
    trainer, record = trainer_of(model, tmp_path, 2, [callback])
    trainer.add_callback(Fails())
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    trainer.remove_callback(Fails)
    record.fed.clear()
    record.stepped.clear()
    trainer.train()
    compare(record, 2, cross_entropy, "by images")


def test_another_trainer_after_one_that_an_error_ended(tmp_path):
    class Fails(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RuntimeError("out of memory")

    model = transformers_vit()
    trainer, _ = trainer_of(model, tmp_path / "a", 2, [VCRegTrainerCallback(STRONG)])
    trainer.add_callback(Fails())
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    again, record = trainer_of(model, tmp_path / "b", 2, [VCRegTrainerCallback(STRONG)])
    again.train()
    compare(record, 2, cross_entropy, "by images")
    assert getattr(model, "vcreg", None) is None, "detached at its end"


def test_evaluation_passes_through(tmp_path):
    trainer, _ = trainer_of(
        transformers_vit(), tmp_path, 2, [VCRegTrainerCallback(VCReg())], eval_strategy="epoch",
        label_smoothing_factor=SMOOTHING,
    )  # fmt: skip
    trainer.train()
    assert any("eval_loss" in line for line in trainer.state.log_history)


def test_a_model_without_vcreg_is_refused(tmp_path):
    trainer, _ = trainer_of(transformers_vit(), tmp_path, 1, [VCRegTrainerCallback()])
    with pytest.raises(AttachError, match=r"ViTForImageClassification has VCReg.*VCRegTrainerCallback\(VCReg\(\)\)"):
        trainer.train()


def test_it_is_for_a_trainer():
    with pytest.raises(AttachError, match="no Trainer called it"):
        VCRegTrainerCallback(VCReg()).on_train_begin(None, None, None)
