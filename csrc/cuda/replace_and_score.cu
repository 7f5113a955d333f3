// Replacement, both discrepancies, their product and the 5×5 mean. Predictions are read once: a warp holds a pixel's
// two rows of one modality in registers, the observed one interpolated from tokens that live in the cache.
#include "interpolation.h"
#include "launch.h"
#include "listed.h"
#include "norms.h"
#include "scan.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
// A block that takes discrepancies has one pixel: its registers are free again as soon as the slower of the pixel's two
// modalities is read, not the slowest of many. Eight such blocks on a multiprocessor have 128 registers a thread.
constexpr int kPixelThreads = 64, kPixelBlocks = 8;
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
__device__ float discrepancy(const float* predicted, const Rows& tokens, const Interpolation& all, int64_t pixel) {
  constexpr int kPieces = kFloats<kWidth> / kWidth;
  using Part = Window<kWidth, kPieces>;
  PixelEntries entries(all, pixel);
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

// A block a pixel, a warp a modality; zero where invalid, NaN where more pixels are valid than there are rows.
template <int kWidth>
__global__ void __launch_bounds__(kPixelThreads, kPixelBlocks)
    multiply(Modality rgb, Modality xyz, Rows replacement, const long long* taking, const bool* valid,
             const int64_t* rank, float* product) {
  __shared__ float factor[2];
  const int64_t pixel = blockIdx.x;
  const bool colours = threadIdx.x < 32;
  float result = 0;
  if (valid[pixel]) {
    const int64_t row = rank[pixel];
    result = NAN;
    if (row < rgb.predicted.rows) {
      const Modality side = colours ? rgb : xyz;
      const int64_t taken = colours ? taking[row] : -1;
      const float* predicted = taken < 0 ? side.predicted.data + row * side.predicted.stride
                                         : replacement.data + taken * replacement.stride;
      result = discrepancy<kWidth>(predicted, side.observed_tokens, side.observed, row);
    }
  }
  if (threadIdx.x % 32 == 0) factor[threadIdx.x / 32] = result;
  __syncthreads();
  if (threadIdx.x == 0) product[pixel] = factor[0] * factor[1];
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
    CFR_LAUNCH((multiply<4>), blocks_for(pixels, 1), kPixelThreads, 0, on, rgb, xyz, replacement, taking, valid, place,
               product);
  else
    CFR_LAUNCH((multiply<1>), blocks_for(pixels, 1), kPixelThreads, 0, on, rgb, xyz, replacement, taking, valid, place,
               product);
  check(cudaGetLastError(), "replace_and_score: discrepancies");
  CFR_LAUNCH(box_filter, blocks_for(pixels, kThreads), kThreads, 0, on, product, masks.height, masks.width, pixels,
             map);
  check(cudaGetLastError(), "replace_and_score: box filter");
}

}  // namespace cfr::cuda
