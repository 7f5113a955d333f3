// Where the scores of defect pixels stand among all others: what AUPRO and pixel AUROC are made of.
// No torch headers, no pybind11.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace cfr::evaluation {

// A score map and its ground truth, both [height, width] without gaps; non-zero bytes are defects.
template <class Score>
struct Image {
  const Score* scores;
  const uint8_t* defect;
  int64_t height, width;
};

// The defect pixels of one image in raster order.
template <class Score>
struct Defects {
  std::vector<Score> scores;
  std::vector<double> shares;  // 1 / size of the pixel's 8-connected region
  int64_t regions;
};

template <class Score>
Defects<Score> defects_of(const Image<Score>& image);

// One entry for each distinct score of a defect pixel, ascending.
struct DefectRanks {
  std::vector<int64_t> count;   // defect pixels of this score
  std::vector<double> overlap;  // what they add to the mean over regions of the share of a region found
  std::vector<int64_t> below, up_to;  // pixels outside all defects that score less; and at most as much
};

// Ranks the defect pixels of all images among the other pixels, which come image by image and are not kept.
// Scores are finite float32 or float64; −0 equals 0. Sums over defect pixels of one score run in their order.
template <class Score>
class Ranking {
 public:
  // At least one defect pixel; `regions` of all images.
  Ranking(const Score* scores, const double* shares, int64_t count, int64_t regions);
  ~Ranking();
  void add(const Image<Score>& image);
  DefectRanks finish();  // once, at the end

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cfr::evaluation
