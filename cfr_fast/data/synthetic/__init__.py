"""A procedural RGB-D set of sweets and biscuits, with defects and exact masks; no download."""

from cfr_fast.data.synthetic.dataset import load_category, write_dataset
from cfr_fast.data.synthetic.scene import categories, defects, intrinsics, make_sample, one_to_many

__all__ = [
    "categories",
    "defects",
    "intrinsics",
    "load_category",
    "make_sample",
    "one_to_many",
    "write_dataset",
]
