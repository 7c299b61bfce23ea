"""Exit heads: the small classifiers that answer early.

- linear: all values of the activation, one product.
- pool: mixed max and average pooling with a learned mix, then one product (Kaya et al., "Shallow-Deep Networks",
  2019, section 4; the mix after Lee et al., "Generalizing Pooling Functions", 2016).
- conv: convolutions in front of that (Teerapittayanon et al., "BranchyNet", 2016: early exits need more layers).
- tokens: layer norm, then over the tokens that the mask keeps the mean, or the largest value of each feature, or the
  first token alone; one product.

Any of them may be cascaded: it also reads the logits of the exit before it, without sending gradients there
(Wolczyk et al., "Zero Time Waste", 2021, section 3.1). Those logits then cross the cut, uncoded.

Tensor names carry their axes: B rows of a batch, C channels, L length, T tokens, D features, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from training.argument import ArgumentError

TOKENS = ("auto", "mean", "largest", "first")
KINDS = ("auto", "linear", "pool", "conv", "tokens")
_LAYERS: dict[int, tuple[Any, Any, Any, Any]] = {  # by the number of axes behind the channels
    1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d),
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d),
    3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AvgPool3d),
}
_GRID = 4  # places per axis that are left after pooling, as in SDN


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Which head, and its options; what does not apply to a kind is refused."""

    kind: str = "auto"  # one of KINDS
    cascade: bool = False  # reads the logits of the exit before it
    dropout: float = 0.0  # in front of the product

    channels: int | None = None  # conv: of every convolution; left out: those of the activation
    layers: int = 1  # conv: how many convolutions
    token: str = "auto"  # tokens: "mean" or "largest" of the real ones, or "first"; auto: the first that suits


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What a head reads."""

    shape: tuple[int | str, ...]  # of a row, with symbols
    features_last: bool  # whether features lie on the last axis (tokens), not the first (channels)
    mask: bool | None = None  # what the mask [B, T] that comes with it says of real tokens; None: there is none


class ExitHead(nn.Module):
    """Features of an activation, joined with the earlier exit's logits where cascaded, then one product.

    Args:
        features: module that makes a vector [B, D] of an activation (and its mask).
        width: D.
        classes: K.
        settings: for cascade and dropout.
    """

    def __init__(self, features: nn.Module, width: int, classes: int, settings: HeadSettings) -> None:
        super().__init__()
        self.features = features
        self.cascade = settings.cascade
        self.norm = nn.LayerNorm(classes) if settings.cascade else nn.Identity()
        self.dropout = nn.Dropout(settings.dropout)
        self.product = nn.Linear(width + classes * settings.cascade, classes)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Logits [B, K] from the activation, its mask if it has one, and the earlier logits [B, K] if cascaded."""
        if self.cascade:
            *own, before_BK = tensors
            joined_BD = torch.cat([self.features(*own), self.norm(before_BK.detach())], dim=1)
        else:
            joined_BD = self.features(*tensors)
        logits_BK: Tensor = self.product(self.dropout(joined_BD))
        return logits_BK


class MixedPool(nn.Module):
    """`mix * max + (1 - mix) * mean` over windows, with a learned mix, one for all channels.

    Args:
        sizes: of the axes that are pooled, one to three; each is left with about four places.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        kernel = tuple(max(size // _GRID, 1) for size in sizes)
        self.left = tuple(size // k for size, k in zip(sizes, kernel, strict=True))
        _, _, largest, mean = _LAYERS[len(sizes)]
        self.largest: nn.Module = largest(kernel)
        self.mean: nn.Module = mean(kernel)
        self.mix = nn.Parameter(torch.tensor(0.5))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Pool the axes behind the channels."""
        pooled: Tensor = self.mix * self.largest(x_BCHW) + (1 - self.mix) * self.mean(x_BCHW)
        return pooled


class TokenPool(nn.Module):
    """Layer norm, then the mean or the largest values of the real tokens, or the first token alone.

    Args:
        width: features of a token, D.
        token: "mean", "largest" or "first".
        real: what the mask says of real tokens.
        features_last: whether tokens come as [B, T, D], not [B, D, T].
    """

    def __init__(self, width: int, token: str, *, real: bool = True, features_last: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.token = token
        self.real = real
        self.features_last = features_last

    def forward(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Return a vector [B, D]; several token axes, such as height and width, count as one."""
        x_BTD = self.norm(x_BTD.flatten(1, -2) if self.features_last else x_BTD.flatten(2).transpose(1, 2))
        if self.token == "first":
            return x_BTD[:, 0]
        if mask_BT is None:
            return x_BTD.mean(1) if self.token == "mean" else x_BTD.amax(1)
        keep_BT1 = ((mask_BT != 0) == self.real).to(x_BTD.dtype).unsqueeze(-1)
        if self.token == "largest":
            return (x_BTD - (1.0 - keep_BT1) * 1e4).amax(1)
        return (x_BTD * keep_BT1).sum(1) / keep_BT1.sum(1).clamp(min=1.0)


def make_head(settings: HeadSettings, activation: Activation, classes: int) -> ExitHead:
    """Build an exit head for an activation, with random weights.

    Raises:
        ConfigError: when there is no such head, it does not suit the activation, or an option has no effect.
    """
    kind = _kind(settings, activation)
    features, width = _MAKERS[kind](settings, activation)
    return ExitHead(features, width, classes, settings)


def _kind(settings: HeadSettings, activation: Activation) -> str:
    if settings.kind not in KINDS:
        raise ArgumentError("head.kind", f"is {settings.kind!r}. It must be one of {', '.join(KINDS)}.")
    if settings.token not in TOKENS:
        raise ArgumentError("head.token", f"is {settings.token!r}. It must be one of {', '.join(TOKENS)}.")
    if settings.layers < 1 or (settings.channels is not None and settings.channels < 1):
        raise ArgumentError("head.layers", "and channels must be whole numbers from 1.")
    if not 0.0 <= settings.dropout < 1.0:
        raise ArgumentError("head.dropout", f"is {settings.dropout}. It must be at least 0 and below 1.")
    kind = settings.kind if settings.kind != "auto" else _suited(activation)
    default = HeadSettings()
    for option, owner in (("channels", "conv"), ("layers", "conv"), ("token", "tokens")):
        if kind != owner and getattr(settings, option) != getattr(default, option):
            raise ArgumentError(f"head.{option}", f"has no effect on a head of kind {kind}.")
    return kind


def _suited(activation: Activation) -> str:
    """The kind for the shape: vectors are multiplied, images and series pooled, tokens averaged."""
    if len(activation.shape) == 1:
        return "linear"
    varying = any(isinstance(size, str) for size in activation.shape)
    return "tokens" if activation.features_last or varying else "pool"


def _sizes(activation: Activation, kind: str) -> tuple[int, ...]:
    sizes = tuple(size for size in activation.shape if isinstance(size, int))
    if len(sizes) < len(activation.shape):
        raise ConfigError(
            f"A {kind} head needs rows of one size. The activation has {list(activation.shape)}; take kind tokens."
        )
    return sizes


def _linear(settings: HeadSettings, activation: Activation) -> tuple[nn.Module, int]:
    return _Flat(), math.prod(_sizes(activation, "linear"))


def _pool(settings: HeadSettings, activation: Activation) -> tuple[nn.Module, int]:
    channels, *rest = _channels_first(activation, "pool")
    pool = MixedPool(tuple(rest))
    return nn.Sequential(pool, _Flat()), channels * math.prod(pool.left)


def _conv(settings: HeadSettings, activation: Activation) -> tuple[nn.Module, int]:
    channels, *rest = _channels_first(activation, "conv")
    layers: list[nn.Module] = []
    conv, norm = _LAYERS[len(rest)][:2]
    for _ in range(settings.layers):
        wide = settings.channels or channels
        layers += [conv(channels, wide, 3, stride=2, padding=1, bias=False), norm(wide), nn.ReLU()]
        channels, rest = wide, [(size + 1) // 2 for size in rest]
    pool = MixedPool(tuple(rest))
    return nn.Sequential(*layers, pool, _Flat()), channels * math.prod(pool.left)


def _tokens(settings: HeadSettings, activation: Activation) -> tuple[nn.Module, int]:
    width = activation.shape[-1 if activation.features_last else 0]
    if len(activation.shape) < 2 or not isinstance(width, int):
        raise ConfigError(
            f"A tokens head needs rows of shape [tokens, features] or [features, tokens], not {list(activation.shape)}."
        )
    varying = any(isinstance(size, str) for size in activation.shape)
    token = settings.token
    if token == "auto":  # without a mask, what rows are filled up with must not drown the rest
        unmasked = "first" if activation.features_last else "largest"
        token = unmasked if varying and activation.mask is None else "mean"
    if token == "mean" and varying and activation.mask is None:
        raise ConfigError(
            "A tokens head takes the mean over rows of different length only with a mask: name the input that is "
            "one under mask, or set head.token to first or largest."
        )
    real = activation.mask is not False
    return TokenPool(width, token, real=real, features_last=activation.features_last), width


def _channels_first(activation: Activation, kind: str) -> tuple[int, ...]:
    sizes = _sizes(activation, kind)
    if len(sizes) not in (2, 3, 4) or activation.features_last:
        raise ConfigError(
            f"A {kind} head needs rows of shape [channels, height, width], [channels, length] or with three axes. "
            f"The activation has {list(activation.shape)}{' with its features last' * activation.features_last}."
        )
    return sizes


class _Flat(nn.Module):
    """One vector per row, whatever the memory format."""

    def forward(self, x: Tensor) -> Tensor:
        """Join all axes but the first."""
        return x.reshape(x.shape[0], -1)


_MAKERS = {"linear": _linear, "pool": _pool, "conv": _conv, "tokens": _tokens}
