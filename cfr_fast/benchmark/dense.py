"""The method in plain PyTorch on dense features, step by step: what the token path is raced against.

Every pixel goes through every step, as in the published procedure, unless only valid ones are asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, cosine_similarity, interpolate, normalize

from cfr_fast.benchmark.scene import SIDE, Scene
from cfr_fast.learned import Learned
from cfr_fast.mappers import CyclicMappers
from cfr_fast.memory import KeyValueBank
from cfr_fast.retriever import AttentionRetriever

BLOCK = 4096  # rows of a similarity matrix at a time


def features(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Dense RGB [P, 768] and 3D [P, 1152] features, and the mask bool [P]."""
    rgb = interpolate(scene.rgb_tokens.permute(2, 0, 1)[None], (SIDE, SIDE), mode="bilinear")[0]
    points = (scene.xyz_tokens[scene.index] * scene.weight[..., None]).sum(dim=1)
    xyz = torch.zeros(SIDE * SIDE, points.shape[1])
    xyz[scene.measured.reshape(-1)] = points
    image = xyz.T.reshape(1, -1, SIDE, SIDE)
    xyz = adaptive_avg_pool2d(avg_pool2d(image, 3, stride=1), (SIDE, SIDE))[0].flatten(1).T.contiguous()
    return rgb.flatten(1).T.contiguous(), xyz, xyz.sum(dim=1) != 0


def predict(scene: Scene, learned: Learned, valid_only: bool = False) -> Tensor:
    """The discrepancy map of one sample, [224, 224]."""
    assert learned.rgb_bank is not None
    assert learned.pairs is not None
    assert learned.retriever is not None
    rgb, xyz, valid = features(scene)
    if valid_only:
        rgb, xyz = rgb[valid], xyz[valid]
    predicted_rgb, predicted_xyz = learned.mappers.xyz_to_rgb(xyz), learned.mappers.rgb_to_xyz(rgb)
    bank = normalize(learned.rgb_bank, dim=1)
    nearest = [
        1 - (part @ bank.T).amax(dim=1) for part in torch.split(normalize(predicted_rgb, dim=1), BLOCK)
    ]
    unreliable = torch.cat(nearest) >= learned.theta
    if not valid_only:
        unreliable &= valid
    query = xyz[unreliable]
    candidates = retrieve(query, learned.pairs.keys)
    predicted_rgb[unreliable] = attend(learned.retriever, query, learned.pairs, candidates)
    score = distance(predicted_rgb, rgb) * distance(predicted_xyz, xyz)
    if valid_only:
        everywhere = torch.zeros(SIDE * SIDE)
        everywhere[valid] = score
        score = everywhere
    score = torch.where(valid, score, 0).reshape(1, SIDE, SIDE)
    return avg_pool2d(score, 5, stride=1, padding=2)[0]


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance of the normalised rows."""
    apart: Tensor = torch.linalg.vector_norm(normalize(a, dim=1) - normalize(b, dim=1), dim=1)
    return apart


def retrieve(query: Tensor, keys: Tensor) -> Tensor:
    """Three most similar keys of every query."""
    unit = normalize(keys, dim=1)
    found = [(part @ unit.T).topk(3, dim=1).indices for part in torch.split(normalize(query, dim=1), BLOCK)]
    return torch.cat(found) if found else torch.empty(0, 3, dtype=torch.int64)


def attend(retriever: AttentionRetriever, query: Tensor, bank: KeyValueBank, index: Tensor) -> Tensor:
    """The attention retriever on gathered keys and values, every one projected where it is used."""
    queries = retriever.q_proj(query)[:, None]
    keys, values = retriever.k_proj(bank.keys[index]), retriever.v_proj(bank.values[index])
    weights = ((queries * keys).sum(dim=2) * retriever.scale).softmax(dim=1)
    composed: Tensor = retriever.out_proj((weights[..., None] * values).sum(dim=1))
    return composed


def mapper_losses(pair: CyclicMappers, rgb: Tensor, xyz: Tensor, valid: Tensor) -> Tensor:
    """The four loss terms over valid pixels, every pixel through the networks; differentiable."""
    predicted_xyz, predicted_rgb = pair.rgb_to_xyz(rgb), pair.xyz_to_rgb(xyz)
    pairs = (
        (predicted_xyz, xyz),
        (predicted_rgb, rgb),
        (pair.xyz_to_rgb(predicted_xyz), rgb),
        (pair.rgb_to_xyz(predicted_rgb), xyz),
    )
    return torch.stack([1 - cosine_similarity(a[valid], b[valid], dim=1, eps=1e-6).mean() for a, b in pairs])


def coreset(features: Tensor, starts: Tensor, count: int) -> Tensor:
    """The greedy selection, one pass of plain operations over all rows per pick."""
    anchor = torch.stack([(features - features[start]).square().sum(dim=1).sqrt() for start in starts])
    squared = anchor.mean(dim=0).square()
    picks = []
    for _ in range(count):
        pick = int(squared.argmax())
        picks.append(pick)
        squared = torch.minimum(squared, (features - features[pick]).square().sum(dim=1))
    return torch.tensor(picks)
