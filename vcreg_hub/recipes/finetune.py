"""Fine-tuning a pretrained network on your own images or videos, in one command."""

from __future__ import annotations

from ..config import Data, Eval, Model, Optim, Recipe, Train, VCReg, Video
from ..evals.multi_view import MultiView


def image() -> Recipe:
    """Any pretrained timm, transformers or torchvision classifier on your own images, with VCReg before the new head.

    Command: vcreg train finetune:image --set model.name=convnext_tiny --set data.root=DIR
    model.name: a timm architecture, `hf:<id or folder>` or `torchvision:<name>`; model.pretrained: true for the
    library's weights, or a folder, file or Hub id. data.root: an ImageFolder (train/ and test/, or class folders of
    which a test set is split off); data.name=hf:<id> for a data set of the Hub.
    VCReg sits where the paper puts it when it fine-tunes (Appendix C.2), on the vector that feeds the classifier, with
    the weakest setting of its grid; `--set where=blocks` regularizes every block, `--set vcreg=null` none.
    Mean, std, interpolation and crop are those of the pretrained weights, unless `--set data.mean=...` and the like say
    otherwise; the run says where they and the head come from. A small set is trained in smaller batches, for 400 steps
    in all where batches of 8 give them. Best weights are picked on a tenth of the training images, never on the test
    images.
    """
    return Recipe(
        name="finetune_image",
        model=Model("convnext_tiny", pretrained=True),
        data=Data("folder", val_fraction=0.1, image_size=224, preprocessing="model", interpolation="model",
                  scale=(0.3, 1.0), augment="ra-2-9", random_erase=0.1),
        optim=Optim("adamw", lr=2e-4, weight_decay=0.05, norm_weight_decay=0.0, bias_weight_decay=0.0,
                    layer_decay=0.75, warmup_epochs=1, warmup_start=0.1, schedule_per="step"),
        train=Train(epochs=20, batch_size=64, label_smoothing=0.1, clip_norm=1.0, keep="best", min_steps=400),
        vcreg=VCReg(alpha=1.0, beta=0.1),
        where="final",
    )  # fmt: skip


def video() -> Recipe:
    """Any pretrained video classifier on your own videos, with VCReg before the new head.

    Command: vcreg train finetune:video --set data.root=DIR
    data.root: class folders of videos (train/, val/ and test/, or the class folders themselves, of which a test set is
    split off); with --set data.name=video_list a folder with train.csv and test.csv, a path and a label a line.
    model.name: videomae_small, videomae_base, videomaev2_small, videomaev2_base or vivit_base, or `hf:<id or folder>`
    for any video classifier of transformers. model.pretrained: true for the Kinetics-400 weights, or a folder, file or
    Hub id, also of a network trained here. ViViT takes --set video.frames=32.
    VCReg sits on the vector that feeds the classifier, with the weakest setting of the paper's grid for video; the
    other settings are milder than HMDB51's. A small set is trained in smaller batches, at the same rate, for 400 steps
    in all where batches of 8 give them. Best weights are picked on a tenth of the training videos, never on test.
    """
    return Recipe(
        name="finetune_video",
        model=Model("videomae_base", pretrained=True, kwargs={"drop_path": 0.1, "head_init_scale": 0.001}),
        data=Data("video_folder", val_fraction=0.1, scale=(0.3, 1.0), augment="rand-m7-n2-mstd0.5-inc1",
                  random_erase=0.1),
        optim=Optim("adamw", lr=1e-4, weight_decay=0.05, norm_weight_decay=0.0,
                    bias_weight_decay=0.0, layer_decay=0.75, warmup_epochs=1, warmup_start=0.0, schedule_per="step"),
        train=Train(epochs=20, batch_size=32, label_smoothing=0.1, clip_norm=1.0, keep="best", min_steps=400),
        eval=Eval(batch_size=30),
        evals=(MultiView(),),
        vcreg=VCReg(alpha=1.0, beta=0.1),
        where="final",
        video=Video(frames=16, stride=2),
    )  # fmt: skip
