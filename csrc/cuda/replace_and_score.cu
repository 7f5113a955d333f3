// Replacement, both discrepancies, their product and the 5×5 mean. Predictions are read once: a warp holds a pixel's
// two rows of one modality in registers, the observed one interpolated from tokens that live in the cache. Where those
// rows lie takes a chain of loads to know; a block follows it once, for all its pixels together.
#include "interpolation.h"
#include "launch.h"
#include "listed.h"
#include "norms.h"
#include "scan.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPixels = 32;             // of a block that takes discrepancies: a lane each
constexpr int kEntries = 16 * kPixels;  // of a modality, in its shared memory; more of them stay where they are
// Floats of each row in the registers of a lane: 1,152 columns, or 512 unaligned ones; longer rows are read twice.
template <int kWidth>
constexpr int kFloats = kWidth == 4 ? 36 : 16;
constexpr int64_t kReach = 2;  // pixels on each side of the 5×5 window

// taking[row] = the last i with replaced[i] = row; −1 before. Numbers out of range are passed over.
__global__ void take_rows(const int64_t* replaced, const int64_t* count, int64_t listed, int64_t rows,
                          long long* taking) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < real_rows(count, listed) && replaced[i] >= 0 && replaced[i] < rows)
    atomicMax(taking + replaced[i], static_cast<long long>(i));
}

// Sums of squares of fp32 that neither overflow nor lose their digits to underflow.
__device__ bool safe(float squares) { return squares > 1e-20f && squares < 1e30f; }

__device__ float inverse(double squares) { return static_cast<float>(1.0 / fmax(sqrt(squares), 1e-12)); }

// ‖a / max(‖a‖, 1e-12) − b / max(‖b‖, 1e-12)‖ of the row `predicted` and the pixel's interpolated tokens.
template <int kWidth>
__device__ float discrepancy(const float* predicted, const Rows& tokens, PixelEntries entries) {
  constexpr int kPieces = kFloats<kWidth> / kWidth;
  using Part = Window<kWidth, kPieces>;
  Part a, b;
  const int cols = static_cast<int>(tokens.cols);
  const bool whole = cols <= Part::kColumns;
  // Visits all pairs of values that this lane is responsible for, zeros behind the rows' end included.
  const auto each = [&](bool again, const auto& visit) {
    for (int first = 0; first < cols; first += Part::kColumns) {
      if (!again || !whole) {
        a.read(predicted, cols, first);
        b.interpolate(tokens, entries, first);
      }
      for (int i = 0; i < kPieces; ++i)
        for (int e = 0; e < kWidth; ++e) visit(a.value[i][e], b.value[i][e]);
    }
  };
  float a_squares = 0, b_squares = 0;
  each(false, [&](float x, float y) {
    a_squares = fmaf(x, x, a_squares);
    b_squares = fmaf(y, y, b_squares);
  });
  a_squares = warp_sum(a_squares);
  b_squares = warp_sum(b_squares);
  float a_scale = inverse(a_squares), b_scale = inverse(b_squares);
  if (!safe(a_squares) || !safe(b_squares)) {
    double a_exact = 0, b_exact = 0;
    each(true, [&](float x, float y) {
      a_exact += double(x) * x;
      b_exact += double(y) * y;
    });
    a_scale = inverse(warp_sum(a_exact));
    b_scale = inverse(warp_sum(b_exact));
  }
  float sum = 0;
  each(true, [&](float x, float y) {
    // Both products rounded alike: equal rows are at distance zero.
    const float difference = __fsub_rn(__fmul_rn(x, a_scale), __fmul_rn(y, b_scale));
    sum = fmaf(difference, difference, sum);
  });
  return sqrtf(warp_sum(sum));
}

// One modality of a block's pixels.
struct BlockRows {
  const float* predicted[kPixels];
  int64_t begin, end[kPixels], source[kEntries];  // of the entries: the first one's number; ends counted from it
  float weight[kEntries];

  // By the whole block, which then meets at a barrier. `replacement` is read where `taking` says so.
  __device__ void find(const Modality& side, int64_t row, int rows, const Rows& replacement, const long long* taking) {
    if (rows == 0) return;
    const Interpolation& all = side.observed;
    const int64_t start = all.offset[row], count = all.offset[row + rows] - start;
    if (threadIdx.x == 0) begin = start;
    if (threadIdx.x < rows) {
      const int64_t mine = row + threadIdx.x, taken = taking ? taking[mine] : -1;
      end[threadIdx.x] = all.offset[mine + 1] - start;
      predicted[threadIdx.x] = taken < 0 ? side.predicted.data + mine * side.predicted.stride
                                         : replacement.data + taken * replacement.stride;
    }
    for (int64_t i = threadIdx.x; i < count && i < kEntries; i += kThreads)
      source[i] = all.source[start + i], weight[i] = all.weight[start + i];
  }

  __device__ PixelEntries entries(const Interpolation& all, int place) const {
    const int64_t from = place == 0 ? 0 : end[place - 1], to = end[place];
    const int count = static_cast<int>(to - from);
    if (to > kEntries) return PixelEntries(all.source + begin + from, all.weight + begin + from, count);
    return PixelEntries(source + from, weight + from, count);
  }
};

// Warps take the rows of the block's pixels in turn; zero where invalid, NaN where more pixels are valid than there are
// rows.
template <int kWidth>
__global__ void __launch_bounds__(kThreads, 2)
    multiply(Modality rgb, Modality xyz, Rows replacement, const long long* taking, const bool* valid,
             const int64_t* rank, int64_t pixels, float* product) {
  __shared__ BlockRows found[2];
  __shared__ float factor[2][kPixels];
  __shared__ int places[kPixels];  // of the pixels among the valid ones; −1 for the others
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kPixels, pixel = first + threadIdx.x % 32;
  const bool flag = pixel < pixels && valid[pixel];
  const int64_t row = rank[first];  // of the first valid pixel; the others' follow
  const unsigned flags = __ballot_sync(kAll, flag);
  const int rows = static_cast<int>(max(int64_t(0), min(int64_t(__popc(flags)), rgb.predicted.rows - row)));
  if (threadIdx.x < kPixels) places[threadIdx.x] = flag ? __popc(flags & ((1u << threadIdx.x) - 1)) : -1;
  found[0].find(rgb, row, rows, replacement, taking);
  found[1].find(xyz, row, rows, replacement, nullptr);
  __syncthreads();
  for (int item = threadIdx.x / 32; item < 2 * rows; item += kWarps) {
    const int modality = item < rows, place = item < rows ? item : item - rows;
    const Modality side = modality ? xyz : rgb;
    const float result = discrepancy<kWidth>(found[modality].predicted[place], side.observed_tokens,
                                             found[modality].entries(side.observed, place));
    if (threadIdx.x % 32 == 0) factor[modality][place] = result;
  }
  __syncthreads();
  const int64_t mine = static_cast<int64_t>(blockIdx.x) * kPixels + threadIdx.x;
  if (threadIdx.x >= kPixels || mine >= pixels) return;
  const int place = places[threadIdx.x];
  product[mine] = place < 0 ? 0.0f : place < rows ? factor[0][place] * factor[1][place] : NAN;
}

// Means of 25 with zeros outside the image; the product is small enough to stay in the cache.
__global__ void box_filter(const float* products, int64_t height, int64_t width, int64_t pixels, float* map) {
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pixel >= pixels) return;
  const int64_t y = pixel / width % height, x = pixel % width;
  const float* product = products + (pixel - y * width - x);
  const int64_t top = max(int64_t(0), y - kReach), bottom = min(height - 1, y + kReach);
  const int64_t left = max(int64_t(0), x - kReach), right = min(width - 1, x + kReach);
  double sum = 0;
  for (int64_t line = top; line <= bottom; ++line)
    for (int64_t column = left; column <= right; ++column) sum += product[line * width + column];
  map[pixel] = static_cast<float>(sum / 25);
}

}  // namespace

int64_t replace_and_score_scratch(int64_t rows, int64_t pixels) {
  return rows + pixels + (pixels + kRankBlock - 1) / kRankBlock;
}

void replace_and_score(const Modality& rgb, const Modality& xyz, const Rows& replacement, const int64_t* replaced,
                       const int64_t* count, const cpu::Masks& masks, int64_t* scratch, float* product, float* map,
                       int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t rows = rgb.predicted.rows, pixels = masks.pixels();
  const bool* valid = masks.valid;
  const auto taking = reinterpret_cast<long long*>(scratch);
  int64_t* place = scratch + rows;
  rank(valid, pixels, place, place + pixels, on, "replace_and_score: ranks of the valid pixels");
  if (rows > 0)
    check(cudaMemsetAsync(taking, 0xff, rows * sizeof(long long), on), "replace_and_score: no replacement");
  if (replacement.rows > 0) {
    CFR_LAUNCH(take_rows, blocks_for(replacement.rows, kThreads), kThreads, 0, on, replaced, count,
               replacement.rows, rows, taking);
    check(cudaGetLastError(), "replace_and_score: replaced rows");
  }
  bool aligned = true;
  for (const Rows* item : {&rgb.predicted, &rgb.observed_tokens, &xyz.predicted, &xyz.observed_tokens, &replacement})
    aligned = aligned && (item->rows == 0 || aligned_rows(*item));
  if (aligned)
    CFR_LAUNCH((multiply<4>), blocks_for(pixels, kPixels), kThreads, 0, on, rgb, xyz, replacement, taking, valid, place,
               pixels, product);
  else
    CFR_LAUNCH((multiply<1>), blocks_for(pixels, kPixels), kThreads, 0, on, rgb, xyz, replacement, taking, valid, place,
               pixels, product);
  check(cudaGetLastError(), "replace_and_score: discrepancies");
  CFR_LAUNCH(box_filter, blocks_for(pixels, kThreads), kThreads, 0, on, product, masks.height, masks.width, pixels,
             map);
  check(cudaGetLastError(), "replace_and_score: box filter");
}

}  // namespace cfr::cuda
