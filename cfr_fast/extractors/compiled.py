"""`torch.compile` for the stages of a frozen network, where this machine can compile."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException


class CompiledStages:
    """Compiles the forward passes of a network's stages or blocks, at their first call.

    Equal blocks share one compilation, which is why they are compiled one by one. Names and weights of the
    network stay as they are. Where compiling fails, the stages run as they were, with one warning.

    Args:
        network: in evaluation mode.
        stages: names of its stages or blocks; those that no longer exist are passed over.
        tapped: names of layers whose outputs are taken; a stage with one inside is left alone, since taking
            it ends the forward pass in the middle of the stage.
    """

    def __init__(self, network: nn.Module, stages: Sequence[str], tapped: Sequence[str]) -> None:
        self._modules = [
            network.get_submodule(stage)
            for stage in stages
            if not any(layer.startswith(f"{stage}.") for layer in tapped)
        ]
        self._modules = [module for module in self._modules if not isinstance(module, nn.Identity)]
        for module in self._modules:
            module.forward = torch.compile(module.forward)

    def run(self, call: Callable[[], Any]) -> Any:
        """What `call` returns; it is called again, on plain stages, where compiling fails."""
        try:
            return call()
        except TorchDynamoException as error:
            self.undo()
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"compile: torch.compile does not work here, the network runs as it is: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )
            return call()

    def undo(self) -> None:
        """Back to plain stages."""
        for module in self._modules:
            del module.forward  # the class's own shows again
        self._modules = []
