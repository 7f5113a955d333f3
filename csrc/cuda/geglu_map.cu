// A GeGLU mapper whose first layer was applied to the tokens. A block owns 64 pixels and 256 outputs; it walks over the
// hidden layer 16 units at a time, makes those of its pixels in shared memory (interpolation, bias, gate) and multiplies
// them with the second layer's weights. The hidden layer of all pixels never exists; each of its units is made once per
// 256 outputs. Products are fp32 multiply-adds; tensor cores (three tf32 products) would be the next step.
#include "fma_tile.h"

namespace cfr::cuda {
namespace {

constexpr int kCached = 1024;  // entries of a block's pixels kept in shared memory

__device__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

__global__ void __launch_bounds__(kTileThreads, 2)
    map_pixels(Rows projected, Interpolation all, const float* bias, Rows weight, const float* out_bias,
               unsigned output_tiles, float* out) {
  __shared__ __align__(16) Panels panels;
  __shared__ int64_t start[kTileLeft + 1], cached_source[kCached];
  __shared__ float cached_weight[kCached];
  const int64_t hidden = weight.cols, outputs = weight.rows;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x / output_tiles) * kTileLeft;
  const int64_t first = static_cast<int64_t>(blockIdx.x % output_tiles) * kTileRight;

  // Pixels behind the last have no entries.
  if (threadIdx.x <= kTileLeft) start[threadIdx.x] = all.offset[min(pixel + int(threadIdx.x), all.pixels)];
  __syncthreads();
  const int64_t entries = start[kTileLeft] - start[0];
  const int64_t* source = all.source + start[0];
  const float* factor = all.weight + start[0];
  if (entries <= kCached) {
    for (int i = threadIdx.x; i < entries; i += kTileThreads) {
      cached_source[i] = source[i];
      cached_weight[i] = factor[i];
    }
    source = cached_source;
    factor = cached_weight;
  }
  __syncthreads();

  Sums sums;
  Piece<kTileLeft> gated;
  Piece<kTileRight> weights;
  weights.read(weight, first, 0);
  for (int64_t col = 0; col < hidden; col += kTileDepth) {
    const int64_t unit = col + gated.column();
    const bool inside = unit < hidden;
    for (int i = 0; i < gated.kItems; ++i) {
      const int p = gated.row(i);
      float gate = 0, value = 0;
      if (inside) {
        for (int64_t j = start[p] - start[0]; j < start[p + 1] - start[0]; ++j) {
          const float* token = projected.data + source[j] * projected.stride + unit;
          gate = fmaf(token[0], factor[j], gate);
          value = fmaf(token[hidden], factor[j], value);
        }
        gate += bias[unit];
        value += bias[hidden + unit];
      }
      gated.value[i] = gelu(gate) * value;
    }
    __syncthreads();  // all have multiplied what the panels held
    gated.write(panels.left);
    weights.write(panels.right);
    __syncthreads();
    if (col + kTileDepth < hidden) weights.read(weight, first, col + kTileDepth);
    sums.add(panels);
  }

  for (int i = 0; i < 8; ++i) {
    const int64_t row = pixel + Sums::row(i);
    for (int j = 0; j < 8; ++j) {
      const int64_t column = first + Sums::column(j);
      if (row < all.pixels && column < outputs) out[row * outputs + column] = sums.value[i][j] + out_bias[column];
    }
  }
}

}  // namespace

void geglu_map(const Rows& projected, const Interpolation& entries, const float* bias, const Rows& weight,
               const float* out_bias, float* out, int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const unsigned pixel_tiles = blocks_for(entries.pixels, kTileLeft);
  const unsigned output_tiles = blocks_for(weight.rows, kTileRight);
  CFR_LAUNCH(map_pixels, pixel_tiles * output_tiles, kTileThreads, 0, on, projected, entries, bias, weight, out_bias,
             output_tiles, out);
  check(cudaGetLastError(), "geglu_map: map");
}

}  // namespace cfr::cuda
