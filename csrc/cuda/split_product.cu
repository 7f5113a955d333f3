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
      CFR_UNROLL
      for (int r = 0; r < Tiles::Sums::kRuns; ++r) {
        const int i = row + Tiles::Sums::row(r);
        if (i >= product.rows) continue;
        const float scale = left_scale[i] * product.factor;
        const int first = anew(col);
        float* const to = product.out + z * product.part_stride + i * product.stride;
        CFR_UNROLL
        for (int c = 0; c < Tiles::Sums::kLength; ++c) {
          const int j = first + Tiles::Sums::col(r, c);
          if (j >= product.cols) continue;
          const float value = sum.at(r, c) * (scale * right_scale[j]);
          to[j] = i >= real ? 0.0f : product.bias ? value + product.bias[j] : value;
        }
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
