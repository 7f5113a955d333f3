"""Creating a timm model with its weights: from the hub, a local file, a seed, or a saved state."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cfr_fast.errors import InputError
from cfr_fast.extractors.torchvision_fix import import_timm

# Training scripts save scores beside the weights, often as numpy's numbers: data, no code.
_NUMBERS: list[Any] = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
]


def create_network(
    model: str, weights: str | None, seed: int, arguments: dict[str, Any], input_size: int | None = None
) -> nn.Module:
    """A timm model without its classifier, frozen, in evaluation mode; leaves global random state alone.

    Args:
        model: timm model name.
        weights: ``"hub"``, ``"random"`` (from `seed`), a .safetensors or .pth file; None leaves the weights
            to whoever calls.
        seed: of random weights.
        arguments: for ``timm.create_model``.
        input_size: given to models that are built for one size (transformers with position embeddings).

    Raises:
        InputError: timm is not installed, no such model, arguments that it does not take, weights that are
            unreachable, unreadable or those of another model.
    """
    timm = import_timm()
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError("model", f"the name of a timm model{hint}", repr(model))
    cfg = timm.get_pretrained_cfg(model)
    if input_size is not None and cfg is not None and cfg.fixed_input_size:
        arguments = {"img_size": input_size, **arguments}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **arguments)
        except (TypeError, RuntimeError, ValueError, AssertionError, KeyError) as error:
            raise InputError(
                "model_kwargs", f"arguments that timm's {model!r} takes", _line(error)
            ) from error
        if weights == "hub":
            network = _from_hub(timm, model, arguments)
    if weights not in (None, "hub", "random"):
        load_weights(network, read_weights(Path(str(weights))), str(weights), f"timm's {model!r}")
    return network.requires_grad_(False).float().eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a .safetensors file or of a .pth, .pt or .bin state dict (read with weights_only).

    Raises:
        InputError: the file is missing, cannot be read, or holds something else.
    """
    if not path.is_file():
        raise InputError("weights", "'hub', 'random' or an existing .safetensors or .pth file", str(path))
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_NUMBERS):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"weights {path}", "a readable weights file", _line(error)) from error
    except Exception as error:  # torch.load raises pickle.UnpicklingError and others on foreign files
        raise InputError(f"weights {path}", "a file of tensors only", _line(error)) from error
    for key in ("state_dict", "model", "teacher", "base_model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights {path}", "a dictionary of named tensors", type(state).__name__)
    return {name.removeprefix("module.").removeprefix("backbone."): value for name, value in state.items()}


def load_weights(network: nn.Module, state: dict[str, Tensor], source: str, owner: str) -> None:
    """Load `state` into `network`; only entries of the classifier, which the network lacks, may be left over.

    Raises:
        InputError: an entry is missing, left over or of another shape; the message names the first.
    """
    wanted = network.state_dict()
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    heads += ("head", "fc", "classifier", "fc_norm", "head_dist")
    state = {name: value for name, value in wanted.items() if name.endswith("num_batches_tracked")} | state
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted and name.split(".")[0] not in heads]
    expected = f"the weights of {owner}"
    if missing or extra:
        parts = [f"{len(missing)} entries missing, first {missing[0]!r}"] if missing else []
        parts += [f"{len(extra)} unknown, first {extra[0]!r}"] if extra else []
        raise InputError(f"weights {source}", expected, "; ".join(parts))
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            got = f"{name!r} of shape {list(state[name].shape)} instead of {list(value.shape)}"
            raise InputError(f"weights {source}", expected, got)
    network.load_state_dict({name: state[name] for name in wanted})


def _from_hub(timm: Any, model: str, arguments: dict[str, Any]) -> nn.Module:
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # each of its ten retries would print a warning; ours says it once
    try:
        network: nn.Module = timm.create_model(model, pretrained=True, num_classes=0, **arguments)
    except Exception as error:  # the hub's client raises its own, requests' and OS errors
        cfg = timm.get_pretrained_cfg(model)
        where = getattr(cfg, "hf_hub_id", None) or getattr(cfg, "url", None) or "none is published"
        expected = (
            f"timm's pretrained weights of {model!r} ({where}) to be reachable; offline, download them"
            " elsewhere and give the file: weights=PATH (.safetensors or .pth)"
        )
        raise InputError("weights", expected, _line(error)) from error
    finally:
        logger.setLevel(level)
    return network


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
