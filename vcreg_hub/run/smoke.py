"""A recipe cut down to seconds on a CPU."""

from __future__ import annotations

import os
from dataclasses import replace

from ..config import Recipe, Video
from ..data import is_drawn

# The blocks of a full-size video network that a smoke test keeps.
SMOKE_BLOCKS = 2
# Four sources of one clip a class: the smallest set whose split has training and test clips of every class.
SMOKE_CLIPS = "action_shapes:4x1"


def smoke_test(recipe: Recipe) -> Recipe:
    """The recipe cut down to two steps on made-up data of its own shapes, for a CPU: everything is passed through
    once, and no number it gives means anything.

    Images are synthetic, points are the recipe's own. Clips are a few real files of `action_shapes`, and a video
    network keeps its width, frames and image size but only `SMOKE_BLOCKS` of its blocks: twelve of ViT-B's would take
    minutes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    clips = recipe.video is not None
    train = replace(
        recipe.train,
        epochs=recipe.train.class_groups,
        max_steps=2,
        batch_size=(2 if clips else 4) * recipe.train.accumulation * world,
        precision="no",
    )
    if is_drawn(recipe.data):  # a step sees all points, which cost nothing
        data, train = recipe.data, replace(train, batch_size=recipe.train.batch_size)
    else:
        data = replace(recipe.data, name=f"synthetic:{recipe.data.name}", root=None, workers=0, train_images=None)
        if data.imbalance is not None:  # a long tail of a few images has none of its last class
            data = replace(data, imbalance=min(2.0, data.imbalance))
    cut = replace(
        recipe,
        name=f"{recipe.name}_smoke",
        model=replace(recipe.model, pretrained=False),
        data=data,
        train=train,
        optim=replace(recipe.optim, warmup_epochs=0),
        eval=replace(recipe.eval, batch_size=8),
    )
    return _with_clips(cut, recipe.video) if recipe.video is not None else cut


def _with_clips(recipe: Recipe, video: Video) -> Recipe:
    from ..models.video_networks import NETWORKS

    kwargs = dict(recipe.model.kwargs)
    if recipe.model.name in NETWORKS and not recipe.model.name.endswith("_tiny"):
        kwargs["num_hidden_layers"] = SMOKE_BLOCKS
    return replace(
        recipe,
        model=replace(recipe.model, kwargs=kwargs),
        data=replace(recipe.data, name=SMOKE_CLIPS),
        video=replace(video, split=1, clips=2, crops=1),
        eval=replace(recipe.eval, batch_size=2),
    )
