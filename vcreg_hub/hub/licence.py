"""The licence identifiers a model card may carry. A licence is always given, never assumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UsageError, unknown_name
from ..files import JSON

# The Hub's own list (its documentation, "Licenses"); `other` needs a name and a link beside it.
LICENCES = tuple(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma other
    """.split()
)


def known_licence(licence: str | None) -> str:
    """`licence` as the Hub writes it, in lower case.

    Errors: UsageError when none is given, UnknownNameError for a word that is not in the list.
    """
    if not licence:
        raise UsageError("these weights have no licence yet: give one (such as --licence apache-2.0); none is assumed")
    if licence.lower() not in LICENCES:
        cure = "Use 'other' with --licence-name and --licence-link for one that is not listed."
        raise unknown_name("licence", licence.lower(), LICENCES, cure)
    return licence.lower()


def check_licence(licence: str | None, name: str | None = None, link: str | None = None) -> str:
    """`known_licence`, and UsageError for `other` without its `name` or `link`."""
    licence = known_licence(licence)
    if licence == "other" and not (name and link):
        raise UsageError("licence 'other' needs --licence-name and --licence-link, a link to its text")
    return licence


def stated_licence(folder: Path, config: JSON | None) -> tuple[str | None, str | None, str | None]:
    """(licence, its name, its link) as the card in `folder` states them, else as config.json does; None for an
    unstated one. A card whose YAML cannot be read states nothing."""
    import yaml
    from huggingface_hub import metadata_load

    card: Any = None
    if (folder / "README.md").is_file():
        try:
            card = metadata_load(folder / "README.md")
        except (ValueError, yaml.YAMLError):
            card = None
    if isinstance(card, dict) and isinstance(card.get("license"), str):
        return card["license"], card.get("license_name"), card.get("license_link")
    return config_licence(config), None, None


def config_licence(config: JSON | None) -> str | None:
    """The licence in an export's config.json; transformers' has none."""
    config = config or {}
    inner = config.get("pretrained_cfg")
    found = inner.get("license") if isinstance(inner, dict) else config.get("license")
    return found if isinstance(found, str) else None
