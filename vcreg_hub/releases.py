"""The table of weights, published or possible: one row a release. The files of a release.

A row whose `sha256` is None has not been published: asking for it is an error that names the recipe that makes it.
Publishing is filling in `licence` and the hashes (and adding the files, where `place` is "package").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parent
CARD, CONFIG, WEIGHTS, RESULTS = "README.md", "config.json", "model.safetensors", "results.json"
# In place of WEIGHTS, of weights in several files: which tensor is in which.
INDEX = "model.safetensors.index.json"
REQUIRED = (CARD, CONFIG, WEIGHTS, "recipe.json", RESULTS, "env.json")
# Of weights that another program trained, whose recipe nobody knows: results.json states this origin.
MODULE, REQUIRED_OF_MODULE = "module", (CARD, CONFIG, WEIGHTS, RESULTS)
_FILES = tuple(
    re.compile(pattern)
    for pattern in (
        *(re.escape(name) for name in REQUIRED),
        r"model(-\d{5}-of-\d{5}\.safetensors|\.safetensors\.index\.json)",
        r"(video_)?preprocessor_config\.json",
        r"processor_config\.json",
        r"[\w\-][\w.\-]*\.png",
        r"\.eval_results/[\w\-][\w.\-]*\.yaml",
    )
)


@dataclass(frozen=True)
class Release:
    """One set of weights.

    name: as timm knows it, `<architecture>_vcreg`. tag: what it was trained on; `<name>.<tag>` is the repo and folder.
    architecture: what its config.json names, a stock timm one or a transformers model type.
    library: what loads it; "vcreg_hub" is timm with an architecture of our own.
    recipe: the address of the recipe that makes it. place: "package" ships with this package, "hub" is a repo.
    experiment: of `vcreg reproduce`, where it is not called like the release.
    licence, sha256, bytes: of model.safetensors, None while there is none. config_sha256: of its config.json.
    """

    name: str
    tag: str
    architecture: str
    recipe: str
    library: Literal["timm", "transformers", "vcreg_hub"] = "timm"
    place: Literal["package", "hub"] = "hub"
    task: str = "image-classification"
    licence: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    config_sha256: str | None = None
    experiment: str | None = None

    @property
    def full_name(self) -> str:
        """`<name>.<tag>`."""
        return f"{self.name}.{self.tag}"

    @property
    def published(self) -> bool:
        """Whether the weights exist."""
        return self.sha256 is not None


# The first row of a name is its default tag.
RELEASES: tuple[Release, ...] = (
    Release("resnet50_vcreg", "in1k", "resnet50", "imagenet:resnet50_vcreg"),
    Release("convnext_tiny_vcreg", "in1k", "convnext_tiny", "imagenet:convnext_tiny_vcreg"),
    Release("convnext_atto_vcreg", "in1k", "convnext_atto", "imagenet:convnext_atto_vcreg"),
    Release("vit_base_patch32_224_vcreg", "in1k", "vit_base_patch32_224", "imagenet:vit_base_patch32_vcreg"),
    Release(
        "resnet32_cifar_vcreg",
        "fashion_mnist",
        "resnet32_cifar",
        "fashion_mnist:resnet32_cifar_vcreg",
        library="vcreg_hub",
        place="package",
        licence="apache-2.0",
        sha256="093ae4fe63d8e04498c0d31b0ccc3283ef7085a4cdeff11bbfed9f559ea5e962",
        bytes=1_880_744,
        config_sha256="5a8d0acf97f07f2947d6e79951c0442f89929e567a539bbd30035500a1f88cf3",
    ),
    Release(
        "convnext_zepto_rms_vcreg",
        "fashion_mnist",
        "convnext_zepto_rms",
        "fashion_mnist:convnext_zepto_rms_vcreg",
        place="package",
        licence="apache-2.0",
        sha256="73556540add6f4fb7da81aeece30b067efa4e977c54b8f3552762c47a8065b26",
        bytes=7_609_896,
        config_sha256="01ed1a04862c176022cdd9188def47079da312addf4917badb9fb568dd7207f0",
    ),
    Release(
        "videomae_tiny_vcreg",
        "action_shapes",
        "videomae",
        "action_shapes:videomae_tiny_finetuned_vcreg",
        library="transformers",
        place="package",
        task="video-classification",
        licence="apache-2.0",
        sha256="9bbda73bc0d145656e4bb8a5a1271bc7c3a457115ad68d6ba0af48c9f775f5f0",
        bytes=1_048_880,
        config_sha256="9a901a69cc68bb04f85d0aa572648c976fc01f05c6dcf7a0b5a47324182493f6",
        experiment="action_shapes_finetuned",
    ),
    *(
        Release(
            f"{network}_vcreg",
            "hmdb51",
            "vivit" if network.startswith("vivit") else "videomae",
            f"hmdb51:{network}_vcreg",
            library="transformers",
            task="video-classification",
        )
        for network in ("videomae_small", "videomae_base", "videomaev2_small", "videomaev2_base", "vivit_base")
    ),
)


def releases_of(name: str) -> list[Release]:
    """The rows of an untagged name, the default first; empty for a name without a release.

    >>> [row.tag for row in releases_of("resnet50_vcreg")]
    ['in1k']
    """
    return [row for row in RELEASES if row.name == name]


def find_release(full_name: str) -> Release | None:
    """The row of `<name>.<tag>`, or of a bare name its default row; None when there is none."""
    name, _, tag = full_name.partition(".")
    return next((row for row in RELEASES if row.name == name and tag in ("", row.tag)), None)


def is_release_file(path: str) -> bool:
    """Whether a file of that path, below a release's folder, may be published or downloaded."""
    return any(pattern.fullmatch(path) for pattern in _FILES)


def cards_folder() -> Path | None:
    """The folder of this installation's model cards: inside the package, or beside it in a clone; None without any."""
    places = (PACKAGE / "model_cards", PACKAGE.parent / "model_cards")
    return next((place for place in places if place.is_dir()), None)
