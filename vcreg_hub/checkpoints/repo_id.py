"""The name of a repo on a hub, `owner/name`."""

from __future__ import annotations

from ..errors import UsageError


def check_repo_id(repo_id: str | None) -> None:
    """UsageError unless `repo_id` is None or `owner/name` as a Hub takes it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if repo_id is None:
        return
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{repo_id!r} is not a repo: {error}") from None
    if repo_id.count("/") != 1:
        raise UsageError(f"{repo_id!r} is not a repo: give owner/name")
