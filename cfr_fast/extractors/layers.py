"""Outputs of chosen layers of a frozen network, as one grid of tokens."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from cfr_fast.errors import InputError


class _EnoughError(Exception):
    """Ends a forward pass once the last layer asked for has answered."""


class LayerTap:
    """Runs a network as far as needed and gives the outputs of chosen layers.

    What lies behind the last of them is removed from the network.

    Args:
        network: a timm model in evaluation mode.
        layers: names of modules, such as ``blocks.3``, or numbers of stages or blocks (negative counts from
            the end); None takes a transformer's last block, elsewhere the last two stages of a stride of at
            most 16. Transformer blocks are followed by the network's final norm, prefix tokens dropped.
        input_size: side of the square images that will come, pixels.

    Raises:
        InputError: a layer that does not exist or gives no grid of features, an input size that the network
            refuses.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str | int] | None, input_size: int) -> None:
        self.network, self.stages = network, _stages(network)
        probe = torch.zeros(1, 3, input_size, input_size)
        stages = self.stages
        names = stages if layers is None else [_name(network, stages, layer) for layer in layers]
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        try:
            outputs, called = self._trace(probe, names)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(
                "input_size", "a size that the network takes", f"{input_size}: {error}"
            ) from error
        if layers is None:
            names = _default_layers(outputs, stages, input_size)
            outputs, called = self._trace(probe, names)
        for name in names:
            if not isinstance(outputs.get(name), Tensor) or outputs[name].ndim not in (3, 4):
                raise InputError("layers", "layers that give a grid of features", repr(name))
        self.layers = tuple(names)
        self._transformer = outputs[names[-1]].ndim == 3
        self._prune(called)

    def __call__(self, images: Tensor) -> Tensor:
        """Features of images [B, 3, s, s] as tokens [B, h0, w0, D] on the finest of the layers' grids.

        Several layers are balanced before they are concatenated: each has the norm √(D / layers) at every
        position, so that none outweighs another in a cosine. One layer alone stays as it is.
        """
        with torch.no_grad():
            outputs = self._run(images, self.layers)
            grids = [self._grid(outputs[name]) for name in self.layers]
            if len(grids) > 1:
                height = max(grid.shape[2] for grid in grids)
                width = max(grid.shape[3] for grid in grids)
                share = (sum(grid.shape[1] for grid in grids) / len(grids)) ** 0.5
                grids = [
                    interpolate(normalize(grid, dim=1) * share, (height, width), mode="bilinear")
                    for grid in grids
                ]
            return torch.cat(grids, dim=1).permute(0, 2, 3, 1).contiguous()

    def _grid(self, output: Tensor) -> Tensor:
        """[B, C, h0, w0] of a layer's output, whatever its layout."""
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if self._channels_last else output
        norm = getattr(self.network, "norm", None)
        normed: Tensor = norm(output) if isinstance(norm, nn.Module) else output
        tokens = normed[:, self._prefix :]
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            raise InputError(
                "layers", "layers that give a square grid of tokens", f"{tokens.shape[1]} tokens"
            )
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, side, side)

    def _run(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        handles = []
        for name in names:

            def keep(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                outputs[name] = output
                if len(outputs) == len(set(names)):
                    raise _EnoughError

            handles.append(self.network.get_submodule(name).register_forward_hook(keep))
        try:
            self.network(images)
        except _EnoughError:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return outputs

    def _trace(self, images: Tensor, names: Sequence[str]) -> tuple[dict[str, Tensor], set[str]]:
        """Outputs, and the names of all modules that took part."""
        with _noting_calls(self.network) as called, torch.no_grad():
            return self._run(images, names), called

    def _prune(self, called: set[str]) -> None:
        """Empty the modules behind the last layer: direct children of its containers that never ran."""
        for layer in self.layers:
            parts = layer.split(".")
            for depth in range(len(parts)):
                container = self.network.get_submodule(".".join(parts[:depth]))
                for child, _ in list(container.named_children()):
                    name = ".".join([*parts[:depth], child])
                    ran = name in called or any(other.startswith(f"{name}.") for other in called)
                    if not ran and not (self._transformer and name == "norm"):
                        setattr(container, child, nn.Identity())


@contextmanager
def _noting_calls(network: nn.Module) -> Iterator[set[str]]:
    called: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: called.add(name))
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _stages(network: nn.Module) -> list[str]:
    """Names of a network's stages or blocks, first to last."""
    for name in ("blocks", "stages", "layers"):
        child = getattr(network, name, None)
        if isinstance(child, nn.Sequential | nn.ModuleList):
            return [f"{name}.{i}" for i in range(len(child))]
    return [str(info["module"]) for info in getattr(network, "feature_info", [])]


def _name(network: nn.Module, stages: list[str], layer: str | int) -> str:
    if isinstance(layer, int):
        if -len(stages) <= layer < len(stages):
            return stages[layer]
        raise InputError("layers", f"numbers from {-len(stages)} to {len(stages) - 1}", str(layer))
    names = [name for name, _ in network.named_modules() if name]
    if layer in names:
        return layer
    near = difflib.get_close_matches(layer, names, n=3) or stages
    raise InputError("layers", f"names of modules such as {', '.join(near)}", repr(layer))


def _default_layers(outputs: dict[str, Tensor], stages: list[str], input_size: int) -> list[str]:
    if outputs[stages[-1]].ndim == 3:
        return stages[-1:]
    fine = [name for name in stages if input_size / max(outputs[name].shape[2:]) <= 17]
    return fine[-2:] or stages[-1:]
