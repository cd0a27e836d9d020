"""transformers' own Trainer, untouched: its accumulated gradients with `watch_module` against the explicit loss."""

from __future__ import annotations

import pytest
import torch
from small_models import STRONG, distance, explicit_penalty, gradients, transformers_vit

from vcreg_hub.placement.sites import find_blocks
from vcreg_hub.regularizer.attachment import attach

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # Trainer's own
@pytest.mark.parametrize("accepts_loss_kwargs", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_trainer(tmp_path, accumulation, accepts_loss_kwargs):
    from transformers import Trainer, TrainerCallback, TrainingArguments

    g = torch.Generator().manual_seed(0)
    # Ten images in batches of four: with accumulation the last step's batches have unequal sizes.
    data = [
        {"pixel_values": torch.randn(3, 16, 16, generator=g), "labels": int(torch.randint(3, (), generator=g))}
        for _ in range(10)
    ]
    model = transformers_vit()
    model.accepts_loss_kwargs = accepts_loss_kwargs
    fed, stepped = [], []
    model.register_forward_pre_hook(lambda m, args, kwargs: fed.append(dict(kwargs)), with_kwargs=True)

    class Record(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            stepped.append(gradients(model).clone())

    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=accumulation,
        num_train_epochs=1, learning_rate=0.0, max_grad_norm=0.0, report_to="none", save_strategy="no", use_cpu=True,
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Record()])
    with attach(model, STRONG) as vc:
        vc.watch_module(model)
        trainer.train()

    assert len(fed) == 3
    assert ("num_items_in_batch" in fed[0] and fed[0]["num_items_in_batch"] is not None) is accepts_loss_kwargs
    twin = transformers_vit()
    groups = [fed[i : i + accumulation] for i in range(0, 3, accumulation)]
    assert len(stepped) == len(groups)
    for group, got in zip(groups, stepped, strict=True):
        twin.zero_grad()
        images = sum(len(batch["labels"]) for batch in group)
        for batch in group:
            # Trainer weighs a batch by its images, or where the model cannot, by the number of batches in the group.
            share = len(batch["labels"]) / images if accepts_loss_kwargs else 1 / len(group)
            with explicit_penalty(find_blocks(twin), STRONG) as terms:
                loss = twin(pixel_values=batch["pixel_values"], labels=batch["labels"]).loss
                ((loss + sum(terms)) * share).backward()
        assert distance(got, gradients(twin)) < 1e-4
