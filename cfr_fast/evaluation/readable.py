"""Reading the samples of an evaluation: what cannot be read stops it, or is left out and listed."""

from __future__ import annotations

from collections.abc import Sequence

from cfr_fast.data.sample import Sample, SampleSource
from cfr_fast.errors import InputError


def read_sample(source: SampleSource, skipped: list[str] | None = None) -> Sample | None:
    """The sample; None where it cannot be read and there is a list that its name can be added to.

    Raises:
        InputError: it cannot be read and there is no list; the message has the path of a file of it.
    """
    try:
        return source.load()
    except InputError as error:
        if skipped is not None:
            skipped.append(source.name)
            return None
        if not source.files or any(str(path) in str(error) for path in source.files):
            raise
        raise InputError(str(source.files[0]), "a sample that can be used", str(error)) from error


def read_shots(
    train: Sequence[SampleSource], indices: Sequence[int], skipped: list[str] | None = None
) -> list[tuple[str, Sample]]:
    """The training samples of the indices, by name, in order.

    Args:
        train: what they were chosen from.
        indices: distinct, ascending.
        skipped: names of those that cannot be read are added here; for each of them the next sample that was
            not chosen and can be read takes its place. None makes them errors.

    Raises:
        InputError: one cannot be read, or too few can.
    """
    found: dict[int, Sample] = {}
    tried = set(indices)
    for index in indices:
        place, sample = index, read_sample(train[index], skipped)
        while sample is None:
            free = [(place + step) % len(train) for step in range(1, len(train))]
            place = next((number for number in free if number not in tried), -1)
            if place < 0:
                raise InputError(
                    "shots", f"{len(indices)} training samples that can be read", f"{len(found)}"
                )
            tried.add(place)
            sample = read_sample(train[place], skipped)
        found[place] = sample
    return [(train[place].name, found[place]) for place in sorted(found)]
