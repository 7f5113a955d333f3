// A GeGLU mapper whose first layer was applied to the tokens. The hidden units of a bounded number of pixels at a time
// (interpolation, bias, gate) go to memory, each made once and already split into fp16 parts, and tensor cores multiply
// them with the second layer's weights (split_product.h).
#include "listed.h"
#include "split_product.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kPixels = 16384;  // at a time

__device__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// The split hidden units of pixels [first, first + out.padded), a warp a pixel; zeros where there is none. They are
// made twice, which costs less than to keep them: first for the largest.
__global__ void __launch_bounds__(kThreads)
    make_hidden(Rows projected, Interpolation all, const int64_t* count, const float* bias, int64_t hidden,
                int64_t first, UnitRows out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32, pixel = first + row;
  const int lane = threadIdx.x % 32;
  const int64_t real = real_rows(count, all.pixels), padded = out.row_bytes / kPieceBytes * kSplitColumns;
  if (row >= out.padded || row / kTileQueries * kTileQueries >= real - first) return;  // in no tile that is multiplied
  const bool inside = pixel < real;
  const int64_t begin = inside ? all.offset[pixel] : 0, end = inside ? all.offset[pixel + 1] : 0;
  const auto unit_of = [&](int64_t unit) {
    float gate = 0.0f, value = 0.0f;
    const float* const token = projected.data + unit;
    for (int64_t entry = begin; entry < end; ++entry) {
      const float* const from = token + all.source[entry] * projected.stride;
      const float factor = all.weight[entry];
      gate = fmaf(from[0], factor, gate);
      value = fmaf(from[hidden], factor, value);
    }
    return gelu(gate + bias[unit]) * (value + bias[hidden + unit]);
  };
  unsigned largest = 0;
  for (int64_t unit = lane; inside && unit < hidden; unit += 32) largest = max(largest, magnitude(unit_of(unit)));
  for (int step = 16; step > 0; step /= 2) largest = max(largest, __shfl_xor_sync(kAll, largest, step));
  const bool finite = largest < 0x7f800000u;
  const SplitScale scale(finite ? largest : 0);
  const SplitRow to(out, row);
  for (int64_t unit = lane; unit < padded; unit += 32)
    to.put(unit, inside && finite && unit < hidden ? unit_of(unit) * scale.to : 0.0f);
  if (lane == 0) out.scale[row] = finite ? scale.back : NAN;
}

struct Plan {
  TileDevice device;
  UnitRows hidden, weight;
  int64_t bytes;

  Plan(int64_t pixels, const Rows& weights, int index, void* base) : device(split_device(index)) {
    Carver carver(base);
    hidden = carve_split_rows(carver, min(pixels, kPixels), weights.cols, kTileQueries, device.wgmma);
    weight = carve_split_rows(carver, weights.rows, weights.cols, kTileKeys, device.wgmma);
    bytes = carver.used();
  }
};

}  // namespace

int64_t geglu_map_scratch(int64_t pixels, const Rows& weight, int device) {
  return Plan(pixels, weight, device, nullptr).bytes;
}

void geglu_map(const Rows& projected, const Interpolation& entries, const int64_t* count, const float* bias,
               const Rows& weight, const float* out_bias, void* scratch, float* out, int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const Plan plan(entries.pixels, weight, device, scratch);
  split_rows(weight, nullptr, plan.weight, on);
  for (int64_t first = 0; first < entries.pixels; first += kPixels) {
    CFR_LAUNCH(make_hidden, blocks_for(plan.hidden.padded, kWarps), kThreads, 0, on, projected, entries, count, bias,
               weight.cols, first, plan.hidden);
    check(cudaGetLastError(), "geglu_map: hidden units");
    const int64_t rows = min(kPixels, entries.pixels - first);
    multiply_split(plan.device,
                   {plan.hidden, plan.weight, rows, weight.rows, weight.rows, 1.0f, out_bias, count, first, 1, 0,
                    out + first * weight.rows, nullptr},
                   on, "geglu_map: products");
  }
}

}  // namespace cfr::cuda
