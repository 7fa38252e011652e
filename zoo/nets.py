"""The networks that have to be written before they can be exported. Importing this file needs torch.

The state dict names of BertEncoder and MobileNetV2 are those of the files their weights come from.
"""

# mypy: disallow-subclassing-any=False
# torch is optional, so its classes are unknown to the type checker.

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head self-attention without the output projection, in BERT's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part(x).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(batch, length, width)


class _Residual(nn.Module):
    """A projection back to the width, the residual and the norm that BERT puts after it."""

    def __init__(self, wide: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(wide, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.dense(x) + residual)
        return normed


class _BertLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads), "output": _Residual(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = _Residual(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        y: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return y


class _BertEmbeddings(nn.Module):
    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(512, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, ids: Tensor, types: Tensor | None) -> Tensor:
        place = self.position_embeddings.weight[: ids.shape[1]]
        kind = self.token_type_embeddings.weight[0] if types is None else self.token_type_embeddings(types)
        normed: Tensor = self.LayerNorm(self.word_embeddings(ids) + kind + place)
        return normed


class BertEncoder(nn.Module):
    """BERT: token ids [batch, length] -> last hidden state [batch, length, width]."""

    def __init__(self, width: int, layers: int, heads: int, vocabulary: int = 30_522) -> None:
        super().__init__()
        self.embeddings = _BertEmbeddings(width, vocabulary)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_BertLayer(width, heads) for _ in range(layers))})

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        x = self.embeddings(input_ids, token_type_ids)
        mask = None
        if attention_mask is not None:
            mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        return x


class _VitLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width, eps=1e-6)
        self.mix = SelfAttention(width, heads)
        self.out = nn.Linear(width, width)
        self.after = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self.mix(self.before(x), None))
        return x + self.mlp(self.after(x))


class VisionTransformer(nn.Module):
    """ViT-B/16: images [batch, 3, 224, 224] -> class scores [batch, 1000]."""

    def __init__(self, width: int = 768, layers: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.zeros(1, 197, width))
        self.layers = nn.Sequential(*(_VitLayer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.place
        scores: Tensor = self.head(self.norm(self.layers(x))[:, 0])
        return scores


def _conv_norm(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outside)]


class _Bottleneck(nn.Module):
    def __init__(self, inside: int, middle: int, stride: int) -> None:
        super().__init__()
        outside = 4 * middle
        self.body = nn.Sequential(
            *_conv_norm(inside, middle, 1), nn.ReLU(),
            *_conv_norm(middle, middle, 3, stride), nn.ReLU(),
            *_conv_norm(middle, outside, 1),
        )  # fmt: skip
        same = inside == outside and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv_norm(inside, outside, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """Images [batch, 3, height, width] -> class scores [batch, 1000]. The stride is in the 3x3 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [*_conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        inside = 64
        for middle, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for index in range(count):
                blocks.append(_Bottleneck(inside, middle, stride if index == 0 else 1))
                inside = 4 * middle
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        scores: Tensor = self.classifier(pooled)
        return scores


class _InvertedResidual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        parts: list[nn.Module] = []
        if expansion != 1:
            parts.append(nn.Sequential(*_conv_norm(inside, wide, 1), nn.ReLU6()))
        parts.append(nn.Sequential(*_conv_norm(wide, wide, 3, stride, groups=wide), nn.ReLU6()))
        self.conv = nn.Sequential(*parts, *_conv_norm(wide, outside, 1))
        self.adds = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """Images [batch, 3, height, width] -> class scores [batch, 1000]."""

    # expansion of the width inside a block, width after it, blocks, stride of the first
    STAGES = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Sequential(*_conv_norm(3, 32, 3, 2), nn.ReLU6())]
        inside = 32
        for expansion, outside, count, stride in self.STAGES:
            for index in range(count):
                parts.append(_InvertedResidual(inside, outside, stride if index == 0 else 1, expansion))
                inside = outside
        parts.append(nn.Sequential(*_conv_norm(inside, 1280, 1), nn.ReLU6()))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        scores: Tensor = self.classifier(pooled)
        return scores


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file: an 8-byte length, a JSON header, then the raw bytes."""
    types = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    data = np.memmap(path, np.uint8, "r")
    size = int(data[:8].view("<u8")[0])
    header = json.loads(data[8 : 8 + size].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[begin:end].tobytes(), types[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors


def randomise_transformer(net: nn.Module) -> None:
    """Random weights on the scale of trained ones: attention that is neither uniform nor one-hot, uneven norms."""
    for name, parameter in net.named_parameters():
        part = name.split(".")[-2] if "." in name else name
        if "norm" in part.lower() or part in ("before", "after"):
            offset = 1.0 if name.endswith("weight") else 0.0
            nn.init.normal_(parameter, offset, 0.1)
        elif name.endswith("bias"):
            nn.init.normal_(parameter, 0.0, 0.02)
        else:
            spread = 0.05 if part in ("query", "key") else 0.02
            nn.init.trunc_normal_(parameter, 0.0, spread, -3 * spread, 3 * spread)


def randomise_convolutions(net: ResNet50, images: Tensor) -> None:
    """He-initialised convolutions, BatchNorms with the statistics of `images`, and branches below their residuals.

    A trained network enlarges a small change of its input little, relative to its output: MobileNetV2 4 times, this one
    6. With branches as large as their residuals it would be 30 times, and fp16 off by 1.6e-2 (in torch by 1.8e-2).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0.0, 0.1)
            module.momentum = None  # averages over all batches
    for block in net.modules():  # not above: a block comes before its parts, which would undo this
        if isinstance(block, _Bottleneck):
            last = block.body[-1]
            assert isinstance(last, nn.BatchNorm2d)
            last.weight.data *= 0.4
    nn.init.normal_(net.classifier.weight, 0.0, 0.03)
    net.train()
    with torch.no_grad():
        for batch in images.split(8):
            net(batch)
    net.eval()
