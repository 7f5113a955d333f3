"""Races of every kernel and of the whole pipeline against peers, on the machine of whoever asks."""

from cfr_fast.benchmark.machine import Machine, measure_machine
from cfr_fast.benchmark.race import Outcome, Race, Stage, run
from cfr_fast.benchmark.races import RACES, SLOW

__all__ = ["RACES", "SLOW", "Machine", "Outcome", "Race", "Stage", "measure_machine", "run"]
