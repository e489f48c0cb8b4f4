"""Asking whether the Hugging Face hub can be reached: its client retries for minutes where it cannot."""

from pathlib import Path

import requests

from tsbench.errors import TsbenchError

_TIMEOUT_S = 10


def require_source(name: str, source: str, file: str = "config.json") -> None:
    """Make sure that weights can be had: from a directory, the hub's local cache, or the hub.

    Args:
        name: Registry name of the backbone, for the message.
        source: Local directory or hub id.
        file: The file whose presence in the hub's cache shows that the model is there.

    Raises:
        TsbenchError: It is no directory and no hub id; or it is not cached and the hub does not answer.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if Path(source).is_dir():
        return
    try:
        cached = try_to_load_from_cache(source, file)
    except ValueError as error:
        raise TsbenchError(
            f"cannot load '{name}' from '{source}': neither a directory here nor a name on the Hugging Face "
            "hub; give a downloaded copy with --checkpoint DIR"
        ) from error
    if isinstance(cached, str):
        return
    try:
        requests.head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except requests.RequestException as error:
        raise TsbenchError(
            f"cannot load '{name}' from '{source}': no such directory here, and the Hugging Face "
            "hub does not answer; give a downloaded copy with --checkpoint DIR"
        ) from error
