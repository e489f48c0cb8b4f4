"""The plant of F-LLM (arXiv 2602.12756): a frozen language model that predicts the next patch of a series."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tsbench.errors import TsbenchError
from tsbench.models.f_llm.lipschitz import LipschitzConfig, lipschitz_penalty

__all__ = [
    "Decoder",
    "FlattenHeadForecaster",
    "FrozenDecoder",
    "Moments",
    "Plant",
    "PlantConfig",
    "TokenMLP",
    "plant_loss",
    "split_patches",
]

_VARIANCE_FLOOR = 1e-5


@dataclass(frozen=True)
class PlantConfig:
    """Shape of a plant.

    Args:
        patch: Steps per patch P.
        tokens: Patches per context N; the lookback is N * P.
        tokeniser: "linear", as in F-LLM, or "mlp": embedding and de-embedding with one hidden tanh layer, as
            AutoTimes uses on Electricity, Traffic and Weather (without its dropout).
        hidden: Width of that layer; without effect on "linear".

    Raises:
        ValueError: A size is not positive.
    """

    patch: int = 96
    tokens: int = 7
    tokeniser: Literal["linear", "mlp"] = "linear"
    hidden: int = 512

    def __post_init__(self) -> None:
        if min(self.patch, self.tokens, self.hidden) < 1:
            raise ValueError(f"every size must be positive: {self}")

    @property
    def lookback(self) -> int:
        """Context length L in steps."""
        return self.tokens * self.patch


class Decoder(Protocol):
    """What stands between embedding and de-embedding; a part of the network if it is an `nn.Module`.

    Attributes:
        width: Width d of the vectors it reads and writes.
    """

    width: int

    def __call__(self, tokens: Tensor, cache: Any = None, use_cache: bool = False) -> tuple[Tensor, Any]:
        """Hidden states [B, n, d] of tokens [B, n, d], and their cache; see `FrozenDecoder`."""


class FrozenDecoder:
    """A language model that is never trained, switched to training mode, cast or saved.

    It is not an `nn.Module`, so that a network holding one does not register the language model: parameters,
    state dict, train() and to() of that network leave it alone. Hence the one duty of the caller: put the
    language model on its device, in the dtype of its weights, beforehand; `plant.to(device)` moves the rest.

    Args:
        language_model: Hugging Face decoder without a language-model head, such as `GPT2Model`, `OPTModel`
            or `LlamaModel`; frozen and set to evaluation mode here. Gradients still flow through it to its
            inputs.

    Attributes:
        width: Width d of the vectors it reads and writes. OPT's may be narrower than its layers.
    """

    def __init__(self, language_model: nn.Module) -> None:
        self.language_model = language_model.requires_grad_(False).eval()
        config: Any = language_model.config
        self.width: int = getattr(config, "word_embed_proj_dim", None) or config.hidden_size

    def __call__(self, tokens: Tensor, cache: Any = None, use_cache: bool = False) -> tuple[Tensor, Any]:
        """Read tokens and return what the final norm gives.

        Args:
            tokens: [B, n, d] of any float dtype, all observed.
            cache: What an earlier call returned: the tokens before these. None = there are none.
            use_cache: Whether to return a cache.

        Returns:
            Hidden states [B, n, d] in the language model's dtype, each depending on the tokens up to its own
            alone; and the cache of all tokens so far, or None.
        """
        dtype = next(self.language_model.parameters()).dtype
        output = self.language_model(
            inputs_embeds=tokens.to(dtype), past_key_values=cache, use_cache=use_cache
        )
        return output.last_hidden_state, output.past_key_values


class TokenMLP(nn.Module):
    """What the ablation puts in the language model's place: one hidden layer, each token by itself.

    It is trained, and saved, with the plant that holds it.

    Args:
        width: Width d of the tokens; the hidden layer has 4 d units, as a Transformer's.

    Source: F-LLM, ablation "MLP instead of LLM"; the shape is not published.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, cache: Any = None, use_cache: bool = False) -> tuple[Tensor, None]:
        """As `FrozenDecoder`; there is nothing to cache."""
        return self.layers(tokens), None


@dataclass(frozen=True, eq=False)
class Moments:
    """Instance statistics, [B, 1, 1] each, in data units.

    Attributes:
        mean: Mean of each context.
        std: sqrt(biased variance + 1e-5) of each context, as AutoTimes computes it.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, patches: Tensor) -> Self:
        """Statistics of contexts given as patches [B, N, P]."""
        variance, mean = torch.var_mean(patches, dim=(1, 2), correction=0, keepdim=True)
        return cls(mean, (variance + _VARIANCE_FLOOR).sqrt())

    def normalise(self, patches: Tensor) -> Tensor:
        """Data units [B, n, P] -> normalised units."""
        return (patches - self.mean) / self.std

    def restore(self, patches: Tensor) -> Tensor:
        """Normalised units [B, n, P] -> data units."""
        return patches * self.std + self.mean


class Plant(nn.Module):
    """Next-patch predictor: patches -> embedding E -> decoder -> de-embedding D -> the patch after each.

    yhat_t = D(last hidden state of M(E(s_1), ..., E(s_{t-1}))),  s the normalised patches

    E and D are float32 and stay so under autocast; they and a decoder that is a module, `TokenMLP` or
    `AdaptedDecoder`, are all that is trained and saved.

    Args:
        config: Shape of the plant.
        decoder: Language model M, or what a comparison puts in its place.

    Source: F-LLM, Eq. 8; instance normalisation and patches as in the code of AutoTimes (arXiv 2402.02370).
    """

    def __init__(self, config: PlantConfig, decoder: Decoder) -> None:
        super().__init__()
        self.config = config
        self.decoder: Decoder = decoder
        self.embed = _projection(config, config.patch, decoder.width)
        self.deembed = _projection(config, decoder.width, config.patch)

    def forward(self, context: Tensor) -> Tensor:
        """Predict the patch after each patch of the context.

        Statistics are those of the whole context, so in data units each prediction depends on all of it;
        for the normalised patches see `advance`.

        Args:
            context: [B, N * P] float32, oldest first, no NaN.

        Returns:
            Predictions [B, N, P] float32 of the patches 2 to N + 1, in the context's units.

        Raises:
            ValueError: The context has another length.
        """
        patches = split_patches(context, self.config)
        moments = Moments.of(patches)
        predicted, _ = self.advance(moments.normalise(patches))
        return moments.restore(predicted)

    def advance(self, patches: Tensor, cache: Any = None, use_cache: bool = False) -> tuple[Tensor, Any]:
        """Predict the patch after each normalised patch.

        Args:
            patches: [B, n, P] float32 with any n that the decoder's positions allow.
            cache: What an earlier call returned: the patches before these. None = there are none.
            use_cache: Whether to return a cache.

        Returns:
            Normalised predictions [B, n, P] float32, each depending on the patches up to its own alone; and
            the cache of all patches so far, or None.
        """
        with _full_precision(patches):
            tokens = self.embed(patches)
        hidden, cache = self.decoder(tokens, cache, use_cache)
        with _full_precision(patches):
            return self.deembed(hidden.to(tokens.dtype)), cache


class FlattenHeadForecaster(nn.Module):
    """Baseline without roll-out: all N patches through the decoder, one linear head to the whole horizon.

    Args:
        config: Shape of the embedding, the plant's.
        decoder: Language model, frozen throughout.
        horizon: Steps forecast, H.

    Source: FPT (GPT4TS, arXiv 2302.11939). It cuts overlapping patches and trains the language model's norms
    and positions; here the patches are disjoint and the language model frozen, as the plant's are, so that
    plant and baseline differ in nothing but the way they forecast.
    """

    def __init__(self, config: PlantConfig, decoder: Decoder, horizon: int) -> None:
        super().__init__()
        self.config = config
        self.decoder: Decoder = decoder
        self.embed = _projection(config, config.patch, decoder.width)
        self.head = nn.Linear(config.tokens * decoder.width, horizon)

    def forward(self, context: Tensor) -> Tensor:
        """Forecast [B, H] float32 of contexts [B, N * P] float32, in their units.

        Raises:
            ValueError: The context has another length.
        """
        patches = split_patches(context, self.config)
        moments = Moments.of(patches)
        with _full_precision(patches):
            tokens = self.embed(moments.normalise(patches))
        hidden, _ = self.decoder(tokens)
        with _full_precision(patches):
            forecast = self.head(hidden.to(tokens.dtype).flatten(1))
        return moments.restore(forecast.unsqueeze(1)).squeeze(1)


def plant_loss(plant: Plant, windows: Tensor, lipschitz: LipschitzConfig | None = None) -> Tensor:
    """Loss of stage 1: mean squared error of all N teacher-forced predictions + weight * L_lip.

    Args:
        plant: Plant in training.
        windows: [B, (N + 1) * P] float32; each patch but the first is the target of the patches before it.
        lipschitz: Penalty on the de-embedding; None = none, which is also the validation score.

    Returns:
        Scalar, in squared units of the data.

    Raises:
        TsbenchError: The penalty is asked of a de-embedding that is not linear.
        ValueError: The windows have another length.

    Source: F-LLM, Eq. 12, which sums the squares; the mean keeps the penalty's weight independent of batch
    and patch. That every position counts is AutoTimes'.
    """
    patch = plant.config.patch
    targets = split_patches(windows[:, patch:], plant.config)
    error = F.mse_loss(plant(windows[:, :-patch]), targets)
    if lipschitz is None:
        return error
    if not isinstance(plant.deembed, nn.Linear):
        raise TsbenchError("f-llm: the Lipschitz penalty needs a linear tokeniser; use linear, or no penalty")
    return error + lipschitz.weight * lipschitz_penalty(plant.deembed.weight, lipschitz)


def split_patches(context: Tensor, config: PlantConfig) -> Tensor:
    """Contexts [B, N * P] as patches [B, N, P]; ValueError on another length."""
    if context.shape[1] != config.lookback:
        raise ValueError(f"{context.shape[1]} steps are not {config.tokens} patches of {config.patch}")
    return torch.unflatten(context, 1, (config.tokens, config.patch))


def _projection(config: PlantConfig, inputs: int, outputs: int) -> nn.Module:
    if config.tokeniser == "linear":
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, config.hidden), nn.Tanh(), nn.Linear(config.hidden, outputs))


def _full_precision(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)
