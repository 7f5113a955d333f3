"""Outputs of chosen layers of a frozen network, as one grid of tokens."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from cfr_fast.errors import InputError
from cfr_fast.extractors.folded import folded

LOCAL = "local"


class _EnoughError(Exception):
    """Ends a forward pass once the last layer asked for has answered."""


class LayerTap:
    """Runs a network as far as needed and gives the outputs of chosen layers.

    What lies behind the last of them is removed from the network.

    Args:
        network: a timm model in evaluation mode.
        layers: names of modules, such as ``blocks.3``, or numbers of stages or blocks (negative counts from
            the end); None takes a transformer's last block, elsewhere the last two stages of a stride of at
            most 16; ``"local"`` takes a transformer's last block, elsewhere the first stage of stride 8 and
            the first of stride 16, whose features still say where they are. Transformer blocks are followed
            by the network's final norm, prefix tokens dropped.
        input_size: side of the square images that will come, pixels.
        balanced: whether several layers are given equal norms at every position, see `__call__`.

    Raises:
        InputError: a layer that does not exist or gives no grid of features, an input size that the network
            refuses.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str | int] | str | None,
        input_size: int,
        balanced: bool = True,
    ) -> None:
        self.network = self.running = network
        self.stages, self.balanced = _stages(network), balanced
        probe = torch.zeros(1, 3, input_size, input_size)
        stages = self.stages
        if isinstance(layers, str) and layers != LOCAL:
            raise InputError("layers", f"a list of layers, or {LOCAL!r}", repr(layers))
        choose = layers is None or isinstance(layers, str)
        names = stages if choose else [_name(network, stages, layer) for layer in layers or ()]
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        try:
            outputs, called = self._trace(probe, names)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(
                "input_size", "a size that the network takes", f"{input_size}: {error}"
            ) from error
        if choose:
            names = _default_layers(outputs, stages, input_size, layers == LOCAL)
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
        position, so that none outweighs another in a cosine. One layer alone stays as it is, and so do all
        where `balanced` is False.
        """
        with torch.no_grad():
            outputs = self._run(images, self.layers)
            grids = [self._grid(outputs[name]) for name in self.layers]
            if len(grids) > 1:
                height = max(grid.shape[2] for grid in grids)
                width = max(grid.shape[3] for grid in grids)
                if self.balanced:
                    share = (sum(grid.shape[1] for grid in grids) / len(grids)) ** 0.5
                    grids = [normalize(grid, dim=1) * share for grid in grids]
                grids = [interpolate(grid, (height, width), mode="bilinear") for grid in grids]
            return torch.cat(grids, dim=1).permute(0, 2, 3, 1).contiguous()

    def fold(self, input_size: int) -> None:
        """Run a folded copy of the network from now on, where it gives the same; see `folded`.

        `network` keeps its names and weights, which must be final.
        """
        copy = folded(self.network)
        if copy is self.network:
            return
        images = torch.linspace(-2, 2, 3 * input_size**2).view(1, 3, input_size, input_size)
        plain, self.running = self(images), copy
        # Modules may run in another order than that of their names, or a layer may end before its batch-norm.
        if not torch.allclose(self(images), plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max())):
            self.running = self.network

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.network.to(device)
        self.running.to(device)

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

            handles.append(self.running.get_submodule(name).register_forward_hook(keep))
        try:
            self.running(images)
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


def _default_layers(outputs: dict[str, Tensor], stages: list[str], input_size: int, local: bool) -> list[str]:
    if outputs[stages[-1]].ndim == 3:
        return stages[-1:]
    strides = [input_size / max(outputs[name].shape[2:]) for name in stages]
    if local:
        # An odd input size gives a stride a little off the even one.
        steps = [[n for n, s in zip(stages, strides, strict=True) if abs(s / at - 1) < 0.1] for at in (8, 16)]
        if all(steps):
            return [found[0] for found in steps]
    fine = [name for name, stride in zip(stages, strides, strict=True) if stride <= 17]
    return fine[-2:] or stages[-1:]
