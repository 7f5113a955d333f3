"""Frozen feature extractors, by name."""

from cfr_fast.extractors.base import Extractor
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.registry import (
    ExtractorInfo,
    available_extractors,
    create_extractor,
    create_pair,
    describe,
    restore_extractor,
)

__all__ = [
    "Extractor",
    "ExtractorInfo",
    "FeatureField",
    "available_extractors",
    "create_extractor",
    "create_pair",
    "describe",
    "restore_extractor",
]
