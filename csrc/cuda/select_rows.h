// The rows that two lists of flags leave, ascending.
#pragma once

#include "launch.h"

namespace cfr::cuda {

int64_t select_blocks(int64_t rows);

// Writes the rows with `valid` (null: all) and without `excluded` to index [rows], zeros behind them, and how many
// they are to `count`. rows >= 1; `starts`: scratch of select_blocks(rows).
void select_rows(const bool* excluded, const bool* valid, int64_t rows, int* starts, int64_t* index, int64_t* count,
                 cudaStream_t stream);

}  // namespace cfr::cuda
