// Splitting of rows, a warp a row, and products of split rows, a block a tile.
#include "split_product.h"

#include "listed.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__global__ void split(Rows matrix, const float* factor, UnitRows out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= out.padded) return;
  const int64_t cols = row < matrix.rows ? matrix.cols : 0, padded = out.row_bytes / kPieceBytes * kSplitColumns;
  const float* x = matrix.data + row * matrix.stride;
  unsigned largest = 0;
  for (int64_t col = lane; col < cols; col += 32) largest = max(largest, magnitude(x[col]));
  for (int step = 16; step > 0; step /= 2) largest = max(largest, __shfl_xor_sync(kAll, largest, step));
  const bool finite = largest < 0x7f800000u;
  const SplitScale scale(finite ? largest : 0);
  const SplitRow to(out, row);
  for (int64_t col = lane; col < padded; col += 32)
    to.put(col, col < cols && finite ? x[col] * scale.to : 0.0f);
  if (lane > 0) return;
  const float back = finite ? scale.back : NAN;
  out.scale[row] = factor && row < matrix.rows ? back * factor[row] : back;
}

template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads) multiply(SplitProduct product, unsigned key_tiles) {
  if constexpr (Tiles::kCompiled) {
    CFR_DYNAMIC_SHARED(unsigned char, shared);
    const int64_t left_rows = product.left.padded / product.parts, right_rows = product.right.padded / product.parts;
    const int64_t row = static_cast<int64_t>(blockIdx.x / key_tiles) * kTileQueries;
    const int64_t col = static_cast<int64_t>(blockIdx.x % key_tiles) * kTileKeys;
    const int64_t part = blockIdx.y;
    const int64_t real = product.count ? *product.count - product.before : product.rows;
    if (row >= real) {  // the same for all threads
      const int64_t here = col + threadIdx.x;
      for (int64_t i = row; i < row + kTileQueries && i < product.rows && here < product.cols; ++i)
        product.out[part * product.part_stride + i * product.stride + here] = 0.0f;
      return;
    }
    const int query_tile = static_cast<int>((part * left_rows + row) / kTileQueries);
    const int key_tile = static_cast<int>((part * right_rows + col) / kTileKeys);
    const auto store = [&](int, typename Tiles::Sums& sum) {
      // Places are found anew: kept over the products, or over the rows, they would be too many registers.
      const int tile = anew(static_cast<int>(blockIdx.x)), z = anew(static_cast<int>(blockIdx.y));
      const int row = tile / static_cast<int>(key_tiles) * kTileQueries, col = tile % key_tiles * kTileKeys;
      const float* const left_scale = product.left.scale + z * (product.left.padded / product.parts);
      const float* const right_scale = product.right.scale + z * (product.right.padded / product.parts);
      const int64_t real = product.count ? *product.count - product.before : product.rows;
      const bool pairs = product.stride % 2 == 0 && reinterpret_cast<uintptr_t>(product.out) % sizeof(float2) == 0 &&
                         product.part_stride % 2 == 0;
      CFR_UNROLL
      for (int r = 0; r < Tiles::Sums::kRuns; ++r) {
        const int i = row + Tiles::Sums::row(r);
        float most = -INFINITY;
        bool numbers = true;
        if (i < product.rows) {
          const float scale = left_scale[i] * product.factor;
          const int first = anew(col);
          float* const to = product.out + z * product.part_stride + i * product.stride;
          CFR_UNROLL
          for (int c = 0; c < Tiles::Sums::kLength; c += 2) {  // two neighbours, the first even
            const int j = first + Tiles::Sums::col(r, c);
            const float2 back = *reinterpret_cast<const float2*>(right_scale + j);
            float2 value = make_float2(sum.at(r, c) * (scale * back.x), sum.at(r, c + 1) * (scale * back.y));
            if (j < product.cols) {
              const bool both = j + 1 < product.cols;
              if (product.bias) {
                value.x += product.bias[j];
                if (both) value.y += product.bias[j + 1];
              }
              if (i >= real) value = make_float2(0.0f, 0.0f);
              if (pairs && both) {
                *reinterpret_cast<float2*>(to + j) = value;
              } else {
                to[j] = value.x;
                if (both) to[j + 1] = value.y;
              }
              most = fmaxf(most, both ? fmaxf(value.x, value.y) : value.x);
              numbers = numbers && !isnan(value.x) && !(both && isnan(value.y));
            }
          }
        }
        if (!product.highest) continue;
        unsigned code = numbers ? code_of(most) : kNanCode;
        for (int step = 2; step > 0; step /= 2) code = max(code, __shfl_xor_sync(kAll, code, step));  // a row's four
        if (i < product.rows && threadIdx.x % 4 == 0) atomicMax(product.highest + i, code);
      }
      return true;
    };
    const auto row_at = [&](int place) { return query_tile * kTileQueries + place; };
    Tiles tiles(shared);
    tiles.walk(product.left, query_tile, row_at, product.right, key_tile, key_tile + 1, store);
  }
}

}  // namespace

void split_rows(const Rows& matrix, const float* factor, const UnitRows& out, cudaStream_t stream) {
  if (out.padded == 0) return;
  CFR_LAUNCH(split, blocks_for(out.padded, kWarps), kThreads, 0, stream, matrix, factor, out);
  check(cudaGetLastError(), "split rows");
}

TileDevice split_device(int device) { return TileDevice(device, Precision::bf16, 0); }

void multiply_split(const TileDevice& device, const SplitProduct& product, cudaStream_t stream, const char* what) {
  if (product.rows == 0 || product.cols == 0) return;
  const unsigned key_tiles = blocks_for(product.cols, kTileKeys);
  const dim3 grid(blocks_for(product.rows, kTileQueries) * key_tiles, static_cast<unsigned>(product.parts));
  with_tiles<SplitFloat>(device, [&](auto use) {
    using Tiles = typename decltype(use)::Tiles;
    admit<Tiles>(multiply<Tiles>, what);
    CFR_LAUNCH(multiply<Tiles>, grid, kTileThreads, Tiles::kSharedBytes, stream, product, key_tiles);
    check(cudaGetLastError(), what);
  });
}

}  // namespace cfr::cuda
