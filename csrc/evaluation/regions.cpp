#include "regions.h"

#include <algorithm>
#include <cstring>

namespace cfr::evaluation {
namespace {

// Union-find over the runs of one image; a region's root is its first run.
class Forest {
 public:
  void add() { parent_.push_back(parent_.size()); }

  size_t root(size_t run) {
    for (; parent_[run] != run; run = parent_[run]) parent_[run] = parent_[parent_[run]];
    return run;
  }

  void join(size_t a, size_t b) {
    a = root(a);
    b = root(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<size_t> parent_;
};

}  // namespace

// Eight at a time: most masks are empty nearly everywhere.
int64_t next_set(const uint8_t* line, int64_t at, int64_t width) {
  for (uint64_t eight; at + 8 <= width; at += 8) {
    std::memcpy(&eight, line + at, sizeof eight);
    if (eight != 0) break;
  }
  while (at < width && line[at] == 0) ++at;
  return at;
}

int64_t append_runs(const uint8_t* mask, int64_t height, int64_t width, std::vector<Run>& runs) {
  const size_t offset = runs.size();
  Forest forest;
  size_t above = offset, above_end = offset;  // runs of the row above that may still touch
  for (int64_t row = 0; row < height; ++row) {
    const uint8_t* line = mask + row * width;
    const size_t row_begin = runs.size();
    for (int64_t begin = next_set(line, 0, width), end; begin < width; begin = next_set(line, end, width)) {
      end = begin + 1;
      while (end < width && line[end] != 0) ++end;
      while (above < above_end && runs[above].end < begin) ++above;
      const size_t run = runs.size();
      runs.push_back({row, begin, end, 0});
      forest.add();
      // Corners touch too: the row above counts from begin − 1 to end.
      for (size_t other = above; other < above_end && runs[other].begin <= end; ++other)
        forest.join(other - offset, run - offset);
    }
    above = row_begin;
    above_end = runs.size();
  }

  int64_t regions = 0;
  std::vector<int64_t> sizes(runs.size() - offset);
  for (size_t run = 0; run < sizes.size(); ++run) {
    const size_t root = forest.root(run);
    sizes[root] += runs[offset + run].end - runs[offset + run].begin;
    regions += root == run;
  }
  for (size_t run = 0; run < sizes.size(); ++run) runs[offset + run].region_size = sizes[forest.root(run)];
  return regions;
}

}  // namespace cfr::evaluation
