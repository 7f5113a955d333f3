"""A benchmark that takes a second: toy methods on toy categories; a program too, to be killed."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from toy_detector import ToyDetector, toy_category

from cfr_fast import workers
from cfr_fast.errors import CFRError
from cfr_fast.evaluation.methods import Method
from cfr_fast.evaluation.suite import Suite, run_suite

METHODS = (Method("CFR"), Method("PatchCore RGB", patchcore=("rgb",)))


class ToyMethods:
    """Toy detectors that differ in their thresholds; every prediction can take its time, or go wrong."""

    def __init__(self, methods, seed: int, delay: float = 0.0, trouble=None) -> None:
        self.names = tuple(method.name for method in methods)
        self.models = {method.name: ToyDetector(seed + 10 * len(method.patchcore)) for method in methods}
        self.delay, self.trouble = delay, trouble

    def fit(self, samples):
        return {name: float(model.fit(samples) is None) for name, model in self.models.items()}

    def judge(self, sample):
        time.sleep(self.delay)
        if self.trouble is not None:
            self.trouble(sample)
        for name, model in self.models.items():
            yield name, model.predict(sample), 0.0


def toy_suite(delay: float = 0.0, trouble=None, **options) -> Suite:
    given = {
        "dataset": "toys",
        "categories": [toy_category(name, normal=2, defective=2) for name in ("almond", "biscuit", "candy")],
        "methods": METHODS,
        "build": lambda methods, seed: ToyMethods(methods, seed, delay, trouble),
        "shots": (1, 2),
        "seeds": (42, 0),
        "size": 16,
    }
    return Suite(**{**given, **options})


def die(out: Path, sample) -> None:
    """Once, as the system kills a process that takes too much memory; the other one has a result by then."""
    marker = out.with_name("marker")
    if os.environ.get("RANK") != "1" or marker.exists():
        return
    marker.touch()
    deadline = time.monotonic() + 60
    while not list(out.glob("results/*/*/[!.]*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--trouble", choices=("die",))
    parser.add_argument("--silence", type=float, default=workers.SILENCE)
    options = parser.parse_args()
    workers.SILENCE = options.silence
    trouble = partial(die, options.out) if options.trouble else None
    suite = toy_suite(options.delay, trouble)
    try:
        run_suite(suite, options.out, workers.Workers.join())
    except CFRError as error:
        print(f"cfr: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
