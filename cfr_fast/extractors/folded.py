"""A frozen network as it runs fastest on the CPU: batch-norms folded into their convolutions."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """A copy of the network that computes the same, to rounding, with fewer passes over memory.

    A batch-norm that directly follows a convolution in its parent is folded into it; its activation stays in
    its place. The copy keeps images channels last. A network without such pairs comes back itself.

    Args:
        network: frozen, in evaluation mode.
    """
    pairs = list(_pairs(network))
    if not pairs:
        return network
    made = copy.deepcopy(network)
    for parent, conv, norm in pairs:
        owner = made.get_submodule(parent)
        first, second = owner.get_submodule(conv), owner.get_submodule(norm)
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.BatchNorm2d)
        setattr(owner, conv, fuse_conv_bn_eval(first, second))
        # timm's batch-norm carries dropout (nothing when frozen) and the activation with it.
        setattr(owner, norm, getattr(second, "act", nn.Identity()))
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _pairs(network: nn.Module) -> list[tuple[str, str, str]]:
    """Names of parents with those of a convolution and the batch-norm that follows it."""
    found = []
    for parent, module in network.named_modules():
        children = list(module.named_children())
        for (conv, first), (norm, second) in pairwise(children):
            fits = isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)
            if fits and first.out_channels == second.num_features:
                found.append((parent, conv, norm))
    return found
