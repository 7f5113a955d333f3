// A GeGLU mapper whose first layer was applied to the tokens. A block owns 64 pixels and 256 outputs; it walks over
// the hidden layer 16 units at a time, makes those of its pixels in shared memory (interpolation, bias, gate) and
// multiplies them with the second layer's weights. The hidden layer of all pixels never exists; each of its units is
// made once per 256 outputs. Products are fp32 multiply-adds; tensor cores (three tf32 products) would come next.
#include "fma_tile.h"
#include "listed.h"

namespace cfr::cuda {
namespace {

constexpr int kCached = 1024;  // entries of a block's pixels kept in shared memory

__device__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

__global__ void __launch_bounds__(kTileThreads, 2)
    map_pixels(Rows projected, Interpolation all, const int64_t* count, const float* bias, Rows weight,
               const float* out_bias, unsigned output_tiles, float* out) {
  __shared__ __align__(16) Panels panels;
  __shared__ int start[kTileLeft + 1];  // counted from the block's first entry
  __shared__ int64_t cached_source[kCached];
  __shared__ float cached_weight[kCached];
  const int64_t hidden = weight.cols, outputs = weight.rows;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x / output_tiles) * kTileLeft;
  const int64_t first = static_cast<int64_t>(blockIdx.x % output_tiles) * kTileRight;

  const int64_t real = real_rows(count, all.pixels);
  if (pixel >= real) {
    const int rows = static_cast<int>(min(int64_t(kTileLeft), all.pixels - pixel));
    const int64_t column = first + threadIdx.x;
    for (int i = 0; i < rows && column < outputs; ++i) out[(pixel + i) * outputs + column] = 0.0f;
    return;
  }

  // Pixels behind the last have no entries.
  const int64_t begin = all.offset[pixel];
  if (threadIdx.x <= kTileLeft)
    start[threadIdx.x] = static_cast<int>(all.offset[min(pixel + int(threadIdx.x), real)] - begin);
  __syncthreads();
  const int entries = start[kTileLeft];
  const int64_t* source = all.source + begin;
  const float* factor = all.weight + begin;
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
  int longest = 0;
  for (int i = 0; i < gated.kItems; ++i)
    longest = max(longest, start[gated.row(i) + 1] - start[gated.row(i)]);
  Piece<kTileRight> weights;
  for (int64_t col = 0; col < hidden; col += kTileDepth) {
    const int64_t unit = col + gated.column();
    const bool inside = unit < hidden;
    weights.read(weight, first, col);  // on their way while the hidden units are made
    // The thread's pixels side by side, so that their reads are under way together.
    float gate[gated.kItems] = {}, value[gated.kItems] = {};
    for (int j = 0; inside && j < longest; ++j)
      for (int i = 0; i < gated.kItems; ++i) {
        const int entry = start[gated.row(i)] + j;
        if (entry >= start[gated.row(i) + 1]) continue;
        const float* token = projected.data + source[entry] * projected.stride + unit;
        gate[i] = fmaf(token[0], factor[entry], gate[i]);
        value[i] = fmaf(token[hidden], factor[entry], value[i]);
      }
    const float gate_bias = inside ? bias[unit] : 0.0f, value_bias = inside ? bias[hidden + unit] : 0.0f;
    for (int i = 0; i < gated.kItems; ++i) gated.value[i] = gelu(gate[i] + gate_bias) * (value[i] + value_bias);
    __syncthreads();  // all have multiplied what the panels held
    gated.write(panels.left);
    weights.write(panels.right);
    __syncthreads();
    sums.add(panels);
  }

  for (int i = 0; i < 8; ++i) {
    const int64_t row = pixel + Sums::row(i);
    for (int j = 0; j < 8; ++j) {
      const int64_t column = first + Sums::column(j);
      if (row < all.pixels && column < outputs)
        out[row * outputs + column] = row < real ? sums.value[i][j] + out_bias[column] : 0.0f;
    }
  }
}

}  // namespace

void geglu_map(const Rows& projected, const Interpolation& entries, const int64_t* count, const float* bias,
               const Rows& weight, const float* out_bias, float* out, int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const unsigned pixel_tiles = blocks_for(entries.pixels, kTileLeft);
  const unsigned output_tiles = blocks_for(weight.rows, kTileRight);
  CFR_LAUNCH(map_pixels, pixel_tiles * output_tiles, kTileThreads, 0, on, projected, entries, count, bias, weight,
             out_bias, output_tiles, out);
  check(cudaGetLastError(), "geglu_map: map");
}

}  // namespace cfr::cuda
