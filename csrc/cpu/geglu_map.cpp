// A GeGLU mapper whose first layer was applied to the tokens: interpolation, bias, gate and second layer of a tile
// of pixels while it is in cache; the hidden layer of all pixels never exists.
#include <algorithm>

#include "gemm.h"
#include "interpolation.h"
#include "parallel.h"
#include "vectors.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kTile = 48;      // pixels: a multiple of every left panel width; their hidden layer fits the cache
constexpr int64_t kOutputs = 384;  // columns of the second layer per product

// x ← x Φ(x), the exact form of GELU (Hendrycks & Gimpel 2016). Φ(−|x|) = t·P(t)·e^(−x²/2) with t = 1 / (1 + |x|/√8);
// P is our own least-squares fit, 6e-9 from Φ.
CFR_INLINE void gelu(Floats& x) {
  const Floats size = x < 0.0f ? -x : x;
  const Floats t = 1.0f / (1.0f + size * 0.353553391f);
  Floats sum = t * 0.0293986942f - 0.109108878f;
  sum = sum * t + 0.0610694286f;
  sum = sum * t + 0.15386064f;
  sum = sum * t + 0.0654101578f;
  sum = sum * t + 0.160852886f;
  sum = sum * t + 0.138517078f;
  Floats density = size * size * -0.5f;
  exp_of_negative(density);
  const Floats tail = sum * t * density;
  x = x * (x < 0.0f ? tail : 1.0f - tail);
}

// hidden[k] = gelu(row[k] + bias[k]) · (row[H + k] + bias[H + k])
CFR_INLINE void gate_body(const float* row, const float* bias, int64_t hidden, float* out) {
  int64_t k = 0;
  for (; k + kLanes <= hidden; k += kLanes) {
    Floats gate = vector_at(row + k) + vector_at(bias + k);
    gelu(gate);
    vector_at(out + k) = gate * (vector_at(row + hidden + k) + vector_at(bias + hidden + k));
  }
  if (k == hidden) return;
  float gate[kLanes] = {}, value[kLanes] = {}, result[kLanes];
  for (int64_t i = 0; k + i < hidden; ++i) {
    gate[i] = row[k + i] + bias[k + i];
    value[i] = row[hidden + k + i] + bias[hidden + k + i];
  }
  gelu(vector_at(gate));
  vector_at(result) = vector_at(gate) * vector_at(value);
  std::copy(result, result + (hidden - k), out + k);
}

void gate_portable(const float* row, const float* bias, int64_t hidden, float* out) {
  gate_body(row, bias, hidden, out);
}

CFR_AVX2 void gate_avx2(const float* row, const float* bias, int64_t hidden, float* out) {
  gate_body(row, bias, hidden, out);
}

}  // namespace

void geglu_map(const Rows& projected, const Interpolation& entries, const float* bias, const Rows& weight,
               const float* out_bias, float* out) {
  const Kernels& kernels = cpu::kernels();
  const Interpolate one = interpolate();
  const auto gate = avx2_in_use() ? gate_avx2 : gate_portable;
  const int64_t hidden = weight.cols, outputs = weight.rows;
  const int64_t padded = round_up(outputs, kernels.right), tile = round_up(kTile, kernels.left);
  const std::vector<float> ones(std::max(padded, tile), 1.0f);
  const Scratch packed_weight(padded * hidden);
  for (int64_t first = 0; first < outputs; first += kOutputs)
    pack(weight, ones.data(), first, std::min(kOutputs, outputs - first), kernels.right,
         packed_weight.get() + first * hidden);

  parallel_tasks((entries.pixels + tile - 1) / tile, [&](const auto& next) {
    const Scratch row(2 * hidden), gated(tile * hidden), panels(tile * hidden), product(tile * kOutputs);
    for (int64_t task; (task = next()) >= 0;) {
      const int64_t pixel = task * tile, count = std::min(tile, entries.pixels - pixel);
      for (int64_t i = 0; i < count; ++i)
        gate(interpolated(one, projected, entries, pixel + i, row.get()), bias, hidden, gated.get() + i * hidden);
      pack({gated.get(), count, hidden, hidden}, ones.data(), 0, count, kernels.left, panels.get());
      for (int64_t first = 0; first < outputs; first += kOutputs) {
        const int64_t columns = std::min(kOutputs, outputs - first), width = round_up(columns, kernels.right);
        multiply(kernels, panels.get(), round_up(count, kernels.left), packed_weight.get() + first * hidden, width,
                 hidden, product.get());
        for (int64_t i = 0; i < count; ++i)
          for (int64_t col = 0; col < columns; ++col)
            out[(pixel + i) * outputs + first + col] = product.get()[i * width + col] + out_bias[first + col];
      }
    }
  });
}

}  // namespace cfr::cpu
