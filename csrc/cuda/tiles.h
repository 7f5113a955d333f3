// Products of unit rows in tiles of 128 queries × 256 keys, handed to an epilogue while still in registers.
//
// 8 warps, 2 × 4, of 64 × 64 products each: 128 registers of sums a thread, and the fewest bytes from shared memory
// and from the second-level cache per product that registers allow. Pieces of 128 bytes of the rows pass through a
// ring of stages filled by asynchronous copies, on across the tiles: the next tile's first pieces arrive during the
// epilogue. 16-byte chunks of a row lie permuted (chunk ^ row % 8), so that neither copies nor loads of matrices meet
// in a bank.
#pragma once

#include "copy.h"
#include "mma.h"
#include "unit_rows.h"

namespace cfr::cuda {

constexpr int kTileQueries = 128;
constexpr int kTileKeys = 256;
constexpr int kTileThreads = 256;
constexpr int kStageBytes = (kTileQueries + kTileKeys) * kPieceBytes;
constexpr int kRowsPerCopy = kTileThreads / 8;  // rows that all threads together copy at a time

// A thread's share of a tile: kRuns runs of kLength products of one query, which lie in the tile at row() and col().
struct TileSums {
  static constexpr int kRuns = 8, kLength = 16;
  float part[4][8][4] = {};  // [16 rows][8 columns][fragment] of a warp's 64 × 64

  __device__ float& at(int r, int c) { return part[r / 2][c / 2][r % 2 * 2 + c % 2]; }
  __device__ static int row(int r) { return threadIdx.x / 128 * 64 + threadIdx.x % 32 / 4 + r * 8; }
  __device__ static int col(int, int c) {
    return threadIdx.x / 32 % 4 * 64 + c / 2 * 8 + threadIdx.x % 4 * 2 + c % 2;
  }
};

template <class Element>
__device__ __forceinline__ void multiply_stage(const unsigned char* stage, TileSums& sum) {
  const int lane = threadIdx.x % 32;
  const unsigned char* a_row = stage + (threadIdx.x / 128 * 64 + lane % 16) * kPieceBytes;
  const int b_place = threadIdx.x / 32 % 4 * 64 + lane / 16 * 8 + lane % 8;
  const unsigned char* b_row = stage + (kTileQueries + b_place) * kPieceBytes;
  CFR_UNROLL
  for (int k = 0; k < kPieceBytes / 32; ++k) {
    const int a_chunk = (2 * k + lane / 16) ^ (lane % 8), b_chunk = (2 * k + lane / 8 % 2) ^ (lane % 8);
    uint32_t a[4][4];
    CFR_UNROLL
    for (int i = 0; i < 4; ++i) load_matrices(a[i], a_row + i * 16 * kPieceBytes + a_chunk * 16);
    CFR_UNROLL
    for (int j = 0; j < 4; ++j) {
      uint32_t b[4];
      load_matrices(b, b_row + j * 16 * kPieceBytes + b_chunk * 16);
      CFR_UNROLL
      for (int i = 0; i < 4; ++i) {
        Element::multiply_add(sum.part[i][2 * j], a[i], b[0], b[1]);
        Element::multiply_add(sum.part[i][2 * j + 1], a[i], b[2], b[3]);
      }
    }
  }
}

// A piece holds 32 columns of a row, high parts before low ones: three products of the parts.
template <>
__device__ __forceinline__ void multiply_stage<SplitFloat>(const unsigned char* stage, TileSums& sum) {
  const int lane = threadIdx.x % 32;
  const unsigned char* a_row = stage + (threadIdx.x / 128 * 64 + lane % 16) * kPieceBytes;
  const int b_place = threadIdx.x / 32 % 4 * 64 + lane / 16 * 8 + lane % 8;
  const unsigned char* b_row = stage + (kTileQueries + b_place) * kPieceBytes;
  CFR_UNROLL
  for (int k = 0; k < 2; ++k) {
    const int a_chunk = (2 * k + lane / 16) ^ (lane % 8), b_chunk = (2 * k + lane / 8 % 2) ^ (lane % 8);
    const auto load = [&](uint32_t(&out)[4], const unsigned char* row, int part, int chunk) {
      load_matrices(out, row + part * 16 * kPieceBytes + chunk * 16);
    };
    const auto add = [&](const uint32_t(&a)[4][4], const uint32_t(&b)[4], int j) {
      CFR_UNROLL
      for (int i = 0; i < 4; ++i) {
        Float16::multiply_add(sum.part[i][2 * j], a[i], b[0], b[1]);
        Float16::multiply_add(sum.part[i][2 * j + 1], a[i], b[2], b[3]);
      }
    };
    uint32_t a[4][4], b[4];  // of one part at a time: both would be too many registers
    CFR_UNROLL
    for (int i = 0; i < 4; ++i) load(a[i], a_row, i, a_chunk ^ 4);
    CFR_UNROLL
    for (int j = 0; j < 4; ++j) {
      load(b, b_row, j, b_chunk);
      add(a, b, j);
    }
    CFR_UNROLL
    for (int i = 0; i < 4; ++i) load(a[i], a_row, i, a_chunk);
    CFR_UNROLL
    for (int j = 0; j < 4; ++j) {
      load(b, b_row, j, b_chunk ^ 4);
      add(a, b, j);
      load(b, b_row, j, b_chunk);
      add(a, b, j);
    }
  }
}

// visit(r, place, limit) for the runs r of a thread's sums that hold a product above their query's limit, or NaN.
template <class Sums, class Visit>
__device__ __forceinline__ void visit_runs(Sums& sum, const float* limits, const Visit& visit) {
  CFR_UNROLL
  for (int r = 0; r < Sums::kRuns; ++r) {
    const int place = Sums::row(r);
    const float limit = limits[place];
    bool any = false;
    CFR_UNROLL
    for (int c = 0; c < Sums::kLength; ++c) any |= !(sum.at(r, c) <= limit);
    if (any) visit(r, place, limit);
  }
}

// visit(product, key) for those products of run r, the keys before `end`. `first` is the tile's first key.
template <class Sums, class Visit>
__device__ __forceinline__ void visit_above(Sums& sum, int r, float limit, int first, int end, const Visit& visit) {
  CFR_UNROLL
  for (int c = 0; c < Sums::kLength; ++c) {
    const int key = first + Sums::col(r, c);
    if (!(sum.at(r, c) <= limit) && key < end) visit(sum.at(r, c), key);
  }
}

// A way of multiplying tiles of Element rows, which pass through kStages stages.
template <class Element, int kStages>
class MmaTiles {
 public:
  using Sums = TileSums;
  static constexpr bool kCompiled = true;
  static constexpr bool kTiled = false;  // unit rows lie one behind the other
  static constexpr int kThreads = kTileThreads;
  static constexpr int kSharedBytes = kStages * kStageBytes;

  __device__ explicit MmaTiles(unsigned char* shared) : stages_(shared) {}

  // Key tiles first … last − 1 against one tile of queries; epilogue(tile, sums) returns, the same to all threads,
  // whether to go on. The tile of queries is number `query_tile` where unit rows lie tile by tile, else its places
  // hold the rows row_at(place) of `query`. Both matrices reach to full tiles and have rows of equal length.
  template <class RowAt, class Epilogue>
  __device__ __forceinline__ void walk(const UnitRows& query, int, const RowAt& row_at, const UnitRows& keys,
                                       int first, int last, Epilogue& epilogue) {
    const int place = threadIdx.x / 8, chunk = threadIdx.x % 8;
    unsigned char* const target = stages_ + place * kPieceBytes + (chunk ^ place % 8) * 16;
    const int row_bytes = static_cast<int>(query.row_bytes), pieces = row_bytes / kPieceBytes;
    int next_tile = first, next_piece = 0, next_stage = 0;
    const auto load = [&] {
      if (next_tile < last) {
        unsigned char* const to = target + next_stage * kStageBytes;
        const int at = next_piece * kPieceBytes + chunk * 16;
        CFR_UNROLL
        for (int j = 0; j < kTileQueries / kRowsPerCopy; ++j)
          copy16(to + j * kRowsPerCopy * kPieceBytes,
                 query.data + int64_t(row_at(place + j * kRowsPerCopy)) * row_bytes + at);
        const unsigned char* from = keys.data + int64_t(next_tile * kTileKeys + place) * row_bytes + at;
        CFR_UNROLL
        for (int j = 0; j < kTileKeys / kRowsPerCopy; ++j)
          copy16(to + (kTileQueries + j * kRowsPerCopy) * kPieceBytes, from + j * kRowsPerCopy * row_bytes);
        if (++next_piece == pieces) {
          next_piece = 0;
          ++next_tile;
        }
        if (++next_stage == kStages) next_stage = 0;
      }
      commit_copies();
    };
    for (int s = 0; s < kStages - 1; ++s) load();

    int stage = 0;
    for (int tile = first; tile < last; ++tile) {
      Sums sum;
      for (int piece = 0; piece < pieces; ++piece) {
        wait_copies<kStages - 2>();
        __syncthreads();  // this stage has arrived for all, and all have read the stage that is filled next
        load();
        multiply_stage<Element>(stages_ + stage * kStageBytes, sum);
        if (++stage == kStages) stage = 0;
      }
      if (!epilogue(tile, sum)) break;
    }
    wait_copies<0>();
    __syncthreads();  // the stages are free again
  }

 private:
  unsigned char* stages_;
};

}  // namespace cfr::cuda
