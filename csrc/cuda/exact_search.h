// Exhaustive float32 search for those queries that bfloat16 cannot decide.
#pragma once

#include "../kernels.h"
#include "launch.h"

namespace cfr::cuda {

struct ExactSearch {
  Rows query, keys;
  const float* query_scale;
  const float* key_scale;
  int k;
  const int* list;       // rows of query, `*count` of them, known on the device alone
  const int* count;
  uint64_t* partial;     // scratch of exact_search_scratch(blocks) ranks
  float* similarity;     // [query.rows, k]; only listed rows are written
  int64_t* index;        // the same; null: not wanted
};

constexpr int64_t kExactTile = 64;  // queries and keys a block compares at a time

inline int64_t exact_search_scratch(int blocks) { return int64_t(blocks) * kExactTile * kMaxTopk; }

// On a grid of `blocks`; does nothing where the list is empty.
void exact_search(const ExactSearch& search, int blocks, cudaStream_t stream);

}  // namespace cfr::cuda
