"""Samples, readers, preparation and the procedural set; knows no other room."""

from cfr_fast.data.camera import Camera, read_camera
from cfr_fast.data.clouds import project_points, read_xyz, write_xyz
from cfr_fast.data.datasets import DatasetName, detect_dataset, list_categories, load_category
from cfr_fast.data.depth import depth_to_xyz, read_depth
from cfr_fast.data.discover import find_samples
from cfr_fast.data.files import PathLike, write_atomically
from cfr_fast.data.fingerprint import fingerprint
from cfr_fast.data.frame import Frame, frame_of
from cfr_fast.data.images import read_mask, read_rgb, write_mask, write_rgb
from cfr_fast.data.ply_write import write_ply
from cfr_fast.data.preparation import Background, is_prepared, prepare
from cfr_fast.data.prepared import PreparedCategory, prepare_category
from cfr_fast.data.sample import Category, Sample, SampleSource
from cfr_fast.data.units import Unit

__all__ = [
    "Background",
    "Camera",
    "Category",
    "DatasetName",
    "Frame",
    "PathLike",
    "PreparedCategory",
    "Sample",
    "SampleSource",
    "Unit",
    "depth_to_xyz",
    "detect_dataset",
    "find_samples",
    "fingerprint",
    "frame_of",
    "is_prepared",
    "list_categories",
    "load_category",
    "prepare",
    "prepare_category",
    "project_points",
    "read_camera",
    "read_depth",
    "read_mask",
    "read_rgb",
    "read_xyz",
    "write_atomically",
    "write_mask",
    "write_ply",
    "write_rgb",
    "write_xyz",
]
