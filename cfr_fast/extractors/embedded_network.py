"""The small network behind ``embedded``: plain residual convolutions, features at strides 8 and 16.

Dense 3×3 convolutions, of which processors make more of their peak than of mobile networks' depthwise ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

STRIDES = (8, 16)
CHANNELS = (32, 64)
"""Features at each of `STRIDES`: as many as stages 2 and 3 of MobileNetV2 give, which can be its teacher."""


class EmbeddedNetwork(nn.Module):
    """Two maps of features of an image; 1.3 million weights, 2.2 billion multiplications at 448×448.

    Strided convolutions are padded on the right and below alone, as TensorFlow does for even sizes: output i
    of a stride s is centred on pixel s·i + s − 1, half a cell beyond the middle of cell i.

    Args:
        normalised: with batch normalisation, to be trained; `folded` gives the network without, to be used.
    """

    def __init__(self, normalised: bool = False) -> None:
        super().__init__()
        self.stem = Convolution(3, 24, 2, normalised)
        self.stage4 = nn.Sequential(Convolution(24, 48, 2, normalised), Residual(48, normalised))
        self.stage8 = nn.Sequential(Convolution(48, 96, 2, normalised), Residual(96, normalised))
        self.stage16 = nn.Sequential(
            Convolution(96, 160, 2, normalised), Residual(160, normalised), Residual(160, normalised)
        )
        self.head8 = nn.Conv2d(96, CHANNELS[0], 1)
        self.head16 = nn.Conv2d(160, CHANNELS[1], 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of images.

        Args:
            images: float [B, 3, h, w], h and w multiples of 16, values about −1 … 1.

        Returns:
            float [B, 32, h/8, w/8] and float [B, 64, h/16, w/16].
        """
        fine = self.stage8(self.stage4(self.stem(images)))
        coarse = self.stage16(fine)
        return self.head8(fine), self.head16(coarse)


class Convolution(nn.Module):
    """3×3 convolution, batch normalisation where wanted, ReLU where wanted."""

    def __init__(self, inputs: int, outputs: int, stride: int, normalised: bool, active: bool = True) -> None:
        super().__init__()
        self.stride, self.active = stride, active
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=2 - stride, bias=not normalised)
        self.norm: nn.Module = nn.BatchNorm2d(outputs) if normalised else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] → [B, C', h/stride, w/stride]."""
        if self.stride == 2:
            x = pad(x, (0, 1, 0, 1))
        x = self.norm(self.conv(x))
        return torch.relu(x) if self.active else x


class Residual(nn.Module):
    """x + two convolutions of it, then ReLU."""

    def __init__(self, channels: int, normalised: bool) -> None:
        super().__init__()
        self.first = Convolution(channels, channels, 1, normalised)
        self.second = Convolution(channels, channels, 1, normalised, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] → the same shape."""
        return torch.relu(x + self.second(self.first(x)))


@torch.no_grad()
def folded(network: EmbeddedNetwork) -> EmbeddedNetwork:
    """The same function without batch normalisation: running statistics go into weights and biases."""
    result = EmbeddedNetwork().to(network.head8.weight.device).eval().requires_grad_(False)
    modules = dict(network.named_modules())
    for name, target in result.named_modules():
        source = modules[name]
        if isinstance(target, Convolution) and isinstance(source, Convolution):
            target.conv.weight.copy_(source.conv.weight)
            if isinstance(source.norm, nn.BatchNorm2d):
                _fold(target.conv, source.norm)
            elif source.conv.bias is not None and target.conv.bias is not None:
                target.conv.bias.copy_(source.conv.bias)
    for name in ("head8", "head16"):
        getattr(result, name).load_state_dict(getattr(network, name).state_dict())
    return result


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """γ (Wx − μ)/√(σ² + ε) + β as one convolution; the convolution before the norm has no bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert conv.bias is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    conv.weight.mul_(scale[:, None, None, None])
    conv.bias.copy_(norm.bias - norm.running_mean * scale)
