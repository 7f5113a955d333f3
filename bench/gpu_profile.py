"""Where the time of the step after the extractors goes on a card, kernel by kernel.

python bench/gpu_profile.py      tables on standard output
"""

from __future__ import annotations

import sys

import torch
from gpu import inference, races
from torch.profiler import ProfilerActivity, profile


def main() -> int:
    if not torch.cuda.is_available():
        print("gpu_profile: torch sees no CUDA device", file=sys.stderr)
        return 2
    for race in inference.build(races.Bench(torch.device("cuda"), tiny=False)):
        for turn in range(3):
            race.ours(turn)
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            for turn in range(4):
                race.ours(turn)
            torch.cuda.synchronize()
        print(f"\n{race.what}, four times")
        rows = sorted(found.key_averages(), key=lambda row: -row.device_time_total)
        for row in rows[:14]:
            print(f"{row.device_time_total / 4e3:9.3f} ms  {row.count / 4:6.1f} x  {row.key[:110]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
