// Pixel features as sparse linear combinations of tokens; sums stay in registers until they are whole.
#include <algorithm>

#include "interpolation.h"
#include "parallel.h"
#include "vectors.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kChunk = 64;  // pixels handed to a thread at once

template <int kVectors>
CFR_INLINE void columns(const Rows& tokens, const int64_t* source, const float* weight, int64_t count, int64_t first,
                        float* out) {
  Floats sum[kVectors] = {};
  for (int64_t j = 0; j < count; ++j) {
    const float* token = tokens.data + source[j] * tokens.stride + first;
    const float factor = weight[j];
    for (int i = 0; i < kVectors; ++i) sum[i] += vector_at(token + i * kLanes) * factor;
  }
  for (int i = 0; i < kVectors; ++i) vector_at(out + first + i * kLanes) = sum[i];
}

CFR_INLINE void body(const Rows& tokens, const Interpolation& entries, int64_t pixel, float* out) {
  const int64_t begin = entries.offset[pixel], count = entries.offset[pixel + 1] - begin;
  const int64_t* source = entries.source + begin;
  const float* weight = entries.weight + begin;
  int64_t col = 0;
  for (; col + 8 * kLanes <= tokens.cols; col += 8 * kLanes) columns<8>(tokens, source, weight, count, col, out);
  for (; col + kLanes <= tokens.cols; col += kLanes) columns<1>(tokens, source, weight, count, col, out);
  for (; col < tokens.cols; ++col) {
    float sum = 0;
    for (int64_t j = 0; j < count; ++j) sum += tokens.data[source[j] * tokens.stride + col] * weight[j];
    out[col] = sum;
  }
}

void portable(const Rows& tokens, const Interpolation& entries, int64_t pixel, float* out) {
  body(tokens, entries, pixel, out);
}

CFR_AVX2 void avx2(const Rows& tokens, const Interpolation& entries, int64_t pixel, float* out) {
  body(tokens, entries, pixel, out);
}

}  // namespace

Interpolate interpolate() { return avx2_in_use() ? avx2 : portable; }

void interpolate_tokens(const Rows& tokens, const Interpolation& entries, float* out) {
  const Interpolate one = interpolate();
  parallel_tasks((entries.pixels + kChunk - 1) / kChunk, [&](const auto& next) {
    for (int64_t task; (task = next()) >= 0;)
      for (int64_t pixel = task * kChunk; pixel < std::min(entries.pixels, (task + 1) * kChunk); ++pixel)
        one(tokens, entries, pixel, out + pixel * tokens.cols);
  });
}

}  // namespace cfr::cpu
