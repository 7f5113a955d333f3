// Norms, bfloat16 unit rows and their rounding errors, one warp a row.
#include "unit_rows.h"

#include "mma.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__global__ void round_rows(Rows matrix, UnitRows out, int64_t padded) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= padded) return;
  uint16_t* unit = out.data + row * out.cols;
  if (row >= matrix.rows) {
    for (int64_t col = lane; col < out.cols; col += 32) unit[col] = 0;
    return;
  }
  const float* x = matrix.data + row * matrix.stride;
  double square = 0;
  for (int64_t col = lane; col < matrix.cols; col += 32) square += double(x[col]) * x[col];
  const float scale = static_cast<float>(1.0 / fmax(sqrt(warp_sum(square)), 1e-12));
  double rest = 0;
  for (int64_t col = lane; col < out.cols; col += 32) {
    const float value = col < matrix.cols ? x[col] * scale : 0.0f;
    const uint16_t rounded = to_bfloat16(value);
    unit[col] = rounded;
    const double error = double(value) - double(from_bfloat16(rounded));
    rest += error * error;
  }
  rest = warp_sum(rest);
  if (lane > 0) return;
  const float residual = static_cast<float>(sqrt(rest) * (1 + 1e-6));
  out.scale[row] = scale;
  out.residual[row] = residual;
  if (out.worst && residual < INFINITY) atomicMax(out.worst, __float_as_uint(residual));
}

}  // namespace

void unit_rows(const Rows& matrix, const UnitRows& out, int64_t padded, cudaStream_t stream) {
  if (padded == 0) return;
  CFR_LAUNCH(round_rows, blocks_for(padded, kWarps), kThreads, 0, stream, matrix, out, padded);
  check(cudaGetLastError(), "unit rows");
}

}  // namespace cfr::cuda
