// Connected regions of a mask, as runs of pixels along its rows. No torch headers.
#pragma once

#include <cstdint>
#include <vector>

namespace cfr::evaluation {

// Pixels [begin, end) of one row, and the size of the region that they belong to.
struct Run {
  int64_t row, begin, end;
  int64_t region_size;
};

// First non-zero byte of line[at, width), else `width`.
int64_t next_set(const uint8_t* line, int64_t at, int64_t width);

// Appends the runs of non-zero bytes of mask[height, width] in raster order, with the sizes of their 8-connected
// regions; returns the number of regions.
int64_t append_runs(const uint8_t* mask, int64_t height, int64_t width, std::vector<Run>& runs);

}  // namespace cfr::evaluation
