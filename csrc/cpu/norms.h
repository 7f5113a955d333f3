// Inverse norms of all rows of a matrix, on all threads.
#pragma once

#include "gemm.h"
#include "parallel.h"

namespace cfr::cpu {

inline std::vector<float> parallel_inverse_norms(const Rows& matrix) {
  constexpr int64_t kChunk = 256;
  std::vector<float> out(matrix.rows);
  parallel_tasks((matrix.rows + kChunk - 1) / kChunk, [&](const auto& next) {
    for (int64_t task; (task = next()) >= 0;) {
      const int64_t first = task * kChunk;
      inverse_norms(matrix, first, std::min(kChunk, matrix.rows - first), out.data() + first);
    }
  });
  return out;
}

}  // namespace cfr::cpu
