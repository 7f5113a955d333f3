// The rows that two lists of flags leave, ascending.
#pragma once

#include "launch.h"

namespace cfr::cuda {

int64_t select_blocks(int64_t rows);

// Writes the rows with `valid` (null: all) and without `excluded` to index [rows]; returns how many, which waits for
// the stream. `starts`: scratch of select_blocks(rows) + 1.
int64_t select_rows(const bool* excluded, const bool* valid, int64_t rows, int* starts, int64_t* index,
                    cudaStream_t stream);

}  // namespace cfr::cuda
