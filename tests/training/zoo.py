"""Networks as users write them, small and with random weights: what exits must be put on without a change."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from results.recipes import mobilenet


class LeNet5(nn.Module):
    """As in tutorials: functional pooling, view with the number of rows, dropout between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(image)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(x.size(0), -1)
        x = F.dropout(F.relu(self.fc1(x)), 0.2, self.training)
        return self.fc3(F.relu(self.fc2(x)))


class MobileNetV2(mobilenet.MobileNetV2):
    """Narrow, for ten classes, where nothing else is said."""

    def __init__(self, width: float = 0.125, classes: int = 10, repeats: int = 4) -> None:
        super().__init__(width, classes, repeats)


class Attention(nn.Module):
    """Self-attention written out as vision transformers do."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        qkv = self.qkv(x).reshape(rows, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
        return self.proj(x.transpose(1, 2).reshape(rows, tokens, width))


class DropPath(nn.Module):
    """Leaves a residual out for whole rows, while training (Huang et al., "Stochastic Depth", 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.8)
        keep.div_(0.8)
        return x * keep


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))
        self.drop = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, pre-norm blocks (Dosovitskiy et al., 2021)."""

    def __init__(self, depth: int = 4, width: int = 24) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, 3) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class TextLayer(nn.Module):
    """A layer of BERT (Devlin et al., 2019): post-norm, a mask that is added to the scores."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(0.1)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + added
        joined = (self.dropout(scores.softmax(-1)) @ v).permute(0, 2, 1, 3).flatten(2)
        x = self.norm1(x + self.dropout(self.output(joined)))
        return self.norm2(x + self.dropout(self.down(F.gelu(self.up(x)))))


class TextEncoder(nn.Module):
    """A small BERT: token ids and mask in, the mean of the real tokens classified."""

    def __init__(
        self,
        depth: int = 3,
        width: int = 24,
        vocabulary: int = 100,
        longest: int = 64,
        heads: int = 4,
        hidden: int = 48,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(longest, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(TextLayer(width, heads, hidden) for _ in range(depth))
        self.classify = nn.Linear(width, 5)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.positions(places))
        added = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, added)
        keep = attention_mask.unsqueeze(-1).to(x.dtype)
        return (x * keep).sum(1) / keep.sum(1).clamp(min=1e-9)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.classify(self.encode(input_ids, attention_mask))


class SensorNet(nn.Module):
    """1-D convolutions over windows of six sensor channels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 16, 24, 32)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv1d(a, b, 5, padding=2), nn.BatchNorm1d(b), nn.ReLU(inplace=True), nn.MaxPool1d(2))
                for a, b in itertools.pairwise(widths)
            )
        )
        self.classify = nn.Linear(32, 8)

    def forward(self, window: Tensor) -> Tensor:
        return self.classify(self.blocks(window).mean(-1))


class TimeFirst(nn.Module):
    """Transformer layers in torch's own default order: time before rows."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 16)
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0) for _ in range(2)])
        self.classify = nn.Linear(160, 5)

    def forward(self, window: Tensor) -> Tensor:
        x = self.enter(window.transpose(0, 1))
        for layer in self.layers:
            x = layer(x)
        return self.classify(x.transpose(0, 1).flatten(1))


class AlexNet(nn.Module):
    """AlexNet's layout (Krizhevsky et al., 2012) at a fraction of its width."""

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 11, 4, 2), nn.ReLU(inplace=True), pool,
            nn.Conv2d(8, 12, 5, padding=2), nn.ReLU(inplace=True), pool,
            nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(16, 12, 3, padding=1), nn.ReLU(inplace=True), pool,
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(12 * 4, 32), nn.ReLU(inplace=True),
            nn.Dropout(), nn.Linear(32, 32), nn.ReLU(inplace=True), nn.Linear(32, 10),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(image), 1))


class DenseNet(nn.Module):
    """Two densely connected blocks (Huang et al., 2017) that keep a list of what was made."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * k) for k in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * k, 4, 3, padding=1) for k in range(3))
        self.transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 8, 1), nn.AvgPool2d(2))
        self.last = nn.ModuleList(nn.Conv2d(8 + 4 * k, 4, 3, padding=1) for k in range(2))
        self.classify = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        made = [self.stem(image)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            made.append(conv(F.relu(norm(torch.cat(made, 1)))))
        made = [self.transition(torch.cat(made, 1))]
        for conv in self.last:
            made.append(F.relu(conv(torch.cat(made, 1))))
        return self.classify(torch.cat(made, 1).mean((2, 3)))


class UNet(nn.Module):
    """A U-shaped network (Ronneberger et al., 2015): every level on the way down is read again on the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.up2, self.up1 = nn.Conv2d(32, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.classify = nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Tensor:
        one = F.relu(self.down1(image))
        two = F.relu(self.down2(F.max_pool2d(one, 2)))
        x = F.relu(self.middle(F.max_pool2d(two, 2)))
        x = F.relu(self.up2(torch.cat([F.interpolate(x, scale_factor=2.0), two], 1)))
        x = F.relu(self.up1(torch.cat([F.interpolate(x, scale_factor=2.0), one], 1)))
        return self.classify(x.mean((2, 3)))
