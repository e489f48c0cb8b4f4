"""Where the Hugging Face hub has weights, and whether it can be reached: its client retries for minutes."""

from pathlib import Path

import requests

from tsbench.errors import TsbenchError

_TIMEOUT_S = 10

HUB_IDS = {
    "chronos-bolt-tiny": "amazon/chronos-bolt-tiny",
    "chronos-bolt-mini": "amazon/chronos-bolt-mini",
    "chronos-bolt-small": "amazon/chronos-bolt-small",
    "chronos-bolt-base": "amazon/chronos-bolt-base",
    "chronos-2": "amazon/chronos-2",
    "chronos-2-multivariate": "amazon/chronos-2",
    "timesfm-2.5": "google/timesfm-2.5-200m-pytorch",
    "sundial-base": "thuml/sundial-base-128m",
    "flame-hub": "DecisionIntelligence/FLAME",
    "gpt2": "openai-community/gpt2",
    "opt-125m": "facebook/opt-125m",
    "opt-1.3b": "facebook/opt-1.3b",
    "opt-2.7b": "facebook/opt-2.7b",
    "opt-6.7b": "facebook/opt-6.7b",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
}
"""Published weights by registry name. A backbone that is not here has them in a package, or from its user."""


def is_here(source: str) -> bool:
    """Whether weights are on this machine: a directory, or a model of which the hub's local cache has a part.

    Args:
        source: Local directory or hub id.

    Raises:
        ValueError: It is neither.
    """
    if Path(source).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    files = ("config.json", "model.safetensors")
    return any(isinstance(try_to_load_from_cache(source, file), str) for file in files)


def require_source(name: str, source: str) -> None:
    """Make sure that weights can be had: from a directory, the hub's local cache, or the hub.

    Args:
        name: Registry name of the backbone, for the message.
        source: Local directory or hub id.

    Raises:
        TsbenchError: It is no directory and no hub id; or it is not cached and the hub does not answer.
    """
    try:
        if is_here(source):
            return
    except ValueError as error:
        raise TsbenchError(
            f"cannot load '{name}' from '{source}': neither a directory here nor a name on the Hugging Face "
            "hub; give a downloaded copy with --checkpoint DIR"
        ) from error
    from huggingface_hub import constants

    try:
        requests.head(constants.ENDPOINT, timeout=_TIMEOUT_S)
    except requests.RequestException as error:
        raise TsbenchError(
            f"cannot load '{name}' from '{source}': no such directory here, and the Hugging Face "
            "hub does not answer; give a downloaded copy with --checkpoint DIR"
        ) from error
