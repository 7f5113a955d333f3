// A GeGLU mapper whose first layer was applied to the tokens: interpolation, bias, gate and second layer of a tile
// of pixels while it is in cache; the hidden layer of all pixels never exists.
#include <algorithm>

#include "gemm.h"
#include "interpolation.h"
#include "parallel.h"
#include "vector_math.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kTile = 48;      // pixels: a multiple of every left panel width; their hidden layer fits the cache
constexpr int64_t kOutputs = 384;  // columns of the second layer per product

// hidden[k] = gelu(row[k] + bias[k]) · (row[H + k] + bias[H + k])
CFR_INLINE void gate_body(const float* row, const float* bias, int64_t hidden, float* out) {
  int64_t k = 0;
  for (; k + kFloats <= hidden; k += kFloats)
    store(out + k, gelu(load(row + k) + load(bias + k)) * (load(row + hidden + k) + load(bias + hidden + k)));
  if (k == hidden) return;
  float gate[kFloats] = {}, value[kFloats] = {}, result[kFloats];
  for (int64_t i = 0; k + i < hidden; ++i) {
    gate[i] = row[k + i] + bias[k + i];
    value[i] = row[hidden + k + i] + bias[hidden + k + i];
  }
  store(result, gelu(load(gate)) * load(value));
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
