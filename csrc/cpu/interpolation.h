// One pixel's features from its tokens.
#pragma once

#include "../kernels.h"

namespace cfr::cpu {

// out[tokens.cols] = Σ_j weight[j] · tokens[source[j]] over the entries of `pixel`, in their order.
using Interpolate = void (*)(const Rows& tokens, const Interpolation& entries, int64_t pixel, float* out);

Interpolate interpolate();  // in the variant of this processor

// The pixel's features: in `out`, or in place where they are one token with weight 1.
inline const float* interpolated(Interpolate interpolate, const Rows& tokens, const Interpolation& entries,
                                 int64_t pixel, float* out) {
  const int64_t first = entries.offset[pixel];
  if (entries.offset[pixel + 1] == first + 1 && entries.weight[first] == 1.0f)
    return tokens.data + entries.source[first] * tokens.stride;
  interpolate(tokens, entries, pixel, out);
  return out;
}

}  // namespace cfr::cpu
