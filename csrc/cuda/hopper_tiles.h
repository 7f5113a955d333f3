// Tiles of 128 queries × 256 keys by the instructions of compute capability 9.0, for the epilogues of tiles.h.
//
// Two groups of four warps, of 64 queries × 256 keys each: 128 registers of sums a thread. Unit rows lie in memory tile
// by tile as a stage wants them, so that one thread fills a stage with two bulk copies. While a piece is multiplied,
// the one before is known to be done by both groups, and the stage that held it takes the piece three ahead.
#pragma once

#include "hopper.h"
#include "tiles.h"

namespace cfr::cuda {

struct WgmmaSums {
  static constexpr int kRuns = 8, kLength = 16;  // the 64 products of a query are four runs
  GroupSums part = {};

  __device__ float& at(int r, int c) { return part[r / 2 * 8 + c / 2][r % 2 * 2 + c % 2]; }
  __device__ static int row(int r) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + r % 2 * 8; }
  __device__ static int col(int r, int c) { return r / 2 * 64 + c / 2 * 8 + threadIdx.x % 4 * 2 + c % 2; }
};

// Of rows of Bfloat16, or of SplitFloat.
template <class Element>
class WgmmaTiles {
 public:
  using Sums = WgmmaSums;
  static constexpr bool kSplit = std::is_same_v<Element, SplitFloat>;
  static constexpr int kStep = kSplit ? kPieceBytes / 2 : kPieceBytes;  // bytes of a piece's columns, or of one part
  static constexpr bool kTiled = true;  // unit rows lie tile by tile
  static constexpr bool kCompiled = CFR_HOPPER;
  static constexpr int kThreads = kCompiled ? kTileThreads : 32;  // an empty kernel takes no full block
  static constexpr int kStages = 4;
  static constexpr int kSharedBytes = kStages * (kStageBytes + int(sizeof(uint64_t))) + kAtomBytes;

  __device__ explicit WgmmaTiles(unsigned char* shared) {
#if CFR_HOPPER
    stages_ = shared + (kAtomBytes - shared_address(shared) % kAtomBytes) % kAtomBytes;
    full_ = reinterpret_cast<uint64_t*>(stages_ + kStages * kStageBytes);
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < kStages; ++stage) start_barrier(&full_[stage], 1);
      announce_barriers();
    }
    __syncthreads();
#endif
  }

  // As MmaTiles::walk.
  template <class RowAt, class Epilogue>
  __device__ __forceinline__ void walk(const UnitRows& query, int query_tile, const RowAt&, const UnitRows& keys,
                                       int first, int last, Epilogue& epilogue) {
#if CFR_HOPPER
    constexpr int kQueryBytes = kTileQueries * kPieceBytes, kKeyBytes = kTileKeys * kPieceBytes;
    const int pieces = static_cast<int>(query.row_bytes / kPieceBytes), total = (last - first) * pieces;
    const unsigned char* const query_pieces = query.data + int64_t(query_tile) * pieces * kQueryBytes;
    const unsigned char* const key_pieces = keys.data + int64_t(first) * pieces * kKeyBytes;
    int loaded = 0, done = 0;
    const auto load = [&] {
      if (loaded == total) return;
      if (threadIdx.x == 0) {
        const unsigned stage = (walked_ + loaded) % kStages;
        unsigned char* const to = stages_ + stage * kStageBytes;
        arrive_expecting(&full_[stage], kStageBytes);
        bulk_copy(to, query_pieces + int64_t(loaded % pieces) * kQueryBytes, kQueryBytes, &full_[stage]);
        bulk_copy(to + kQueryBytes, key_pieces + int64_t(loaded) * kKeyBytes, kKeyBytes, &full_[stage]);
      }
      ++loaded;
    };
    // Waits for the next piece; returns its stage.
    const auto arrived = [&] {
      const unsigned count = walked_ + done++, stage = count % kStages;
      wait_barrier(&full_[stage], count / kStages % 2);
      return stages_ + stage * kStageBytes;
    };
    for (int stage = 0; stage < kStages - 1; ++stage) load();
    for (int tile = first; tile < last; ++tile) {
      Sums sum;
      for (int piece = 0; piece < pieces; ++piece) {
        const uint32_t stage = shared_address(arrived());
        const uint32_t a = stage + threadIdx.x / 128 * (kQueryBytes / 2), b = stage + kQueryBytes;
        order_products();
        CFR_UNROLL
        for (int k = 0; k < kStep; k += 32) {
          if constexpr (kSplit) {
            multiply_group<Float16>(sum.part, operand_at(a + k), operand_at(b + kStep + k));
            multiply_group<Float16>(sum.part, operand_at(a + kStep + k), operand_at(b + k));
            multiply_group<Float16>(sum.part, operand_at(a + k), operand_at(b + k));
          } else {
            multiply_group<Element>(sum.part, operand_at(a + k), operand_at(b + k));
          }
        }
        commit_products();
        wait_products<1>();  // the piece before
        __syncthreads();
        load();
      }
      wait_products<0>();
      settle_sums(sum.part);
      if (!epilogue(tile, sum)) break;
    }
    while (done < loaded) arrived();
    walked_ += loaded;
    __syncthreads();  // the stages are free again
#endif
  }

 private:
  unsigned char* stages_;
  uint64_t* full_;  // a barrier a stage
  unsigned walked_ = 0;  // pieces, since the barriers were started
};

}  // namespace cfr::cuda
