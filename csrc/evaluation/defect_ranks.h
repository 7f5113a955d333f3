// Where the scores of defect pixels stand among all others: what AUPRO and pixel AUROC are made of.
// No torch headers, no pybind11.
#pragma once

#include <cstdint>
#include <vector>

namespace cfr::evaluation {

// A score map and its ground truth, both [height, width] without gaps; non-zero bytes are defects.
template <class Score>
struct Image {
  const Score* scores;
  const uint8_t* defect;
  int64_t height, width;
};

// One entry for each distinct score of a defect pixel, ascending.
struct DefectRanks {
  std::vector<int64_t> count;   // defect pixels of this score
  std::vector<double> overlap;  // what they add to the mean over regions of the share of a region found
  std::vector<int64_t> below, up_to;  // pixels outside all defects that score less; and at most as much
};

// Scores are finite float32 or float64; −0 equals 0. Sums run in raster order, image by image.
template <class Score>
DefectRanks defect_ranks(const std::vector<Image<Score>>& images);

}  // namespace cfr::evaluation
