"""Numbers, tables and pictures from results and ground truth."""

from cfr_fast.evaluation.aupro import aupro, pro_curve
from cfr_fast.evaluation.auroc import image_auroc, pixel_auroc, pixel_auroc_map
from cfr_fast.evaluation.cloud import write_cloud
from cfr_fast.evaluation.detector import Detector, Prediction, Verdict
from cfr_fast.evaluation.files import write_map, write_png
from cfr_fast.evaluation.gallery import Gallery, file_stem
from cfr_fast.evaluation.panel import contact_sheet, overlay, panel
from cfr_fast.evaluation.protocol import evaluate_category
from cfr_fast.evaluation.results import CategoryResult, ImageRow, Summary, summarise
from cfr_fast.evaluation.run import evaluate
from cfr_fast.evaluation.scores import write_scores_csv, write_scores_json
from cfr_fast.evaluation.shots import choose_shots, indices_of
from cfr_fast.evaluation.store import Evidence, Images, RunKey, Store, slug
from cfr_fast.evaluation.table import (
    print_results,
    screen,
    verdict_table,
    write_results_csv,
    write_results_json,
)

__all__ = [
    "CategoryResult",
    "Detector",
    "Evidence",
    "Gallery",
    "ImageRow",
    "Images",
    "Prediction",
    "RunKey",
    "Store",
    "Summary",
    "Verdict",
    "aupro",
    "choose_shots",
    "contact_sheet",
    "evaluate",
    "evaluate_category",
    "file_stem",
    "image_auroc",
    "indices_of",
    "overlay",
    "panel",
    "pixel_auroc",
    "pixel_auroc_map",
    "print_results",
    "pro_curve",
    "screen",
    "slug",
    "summarise",
    "verdict_table",
    "write_cloud",
    "write_map",
    "write_png",
    "write_results_csv",
    "write_results_json",
    "write_scores_csv",
    "write_scores_json",
]
