// Norms, unit rows and their rounding errors, one warp a row.
#include "unit_rows.h"

#include "mma.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

template <class Element>
__global__ void round_rows(Rows matrix, UnitRows out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= out.padded) return;
  using Bits = typename Element::Bits;
  const auto put = [&](int64_t col, Bits bits) {
    *reinterpret_cast<Bits*>(out.byte(row, col * sizeof(Bits))) = bits;
  };
  const int64_t cols = out.row_bytes / sizeof(Bits);
  if (row >= matrix.rows) {
    for (int64_t col = lane; col < cols; col += 32) put(col, 0);
    return;
  }
  const float* x = matrix.data + row * matrix.stride;
  double square = 0;
  for (int64_t col = lane; col < matrix.cols; col += 32) square += double(x[col]) * x[col];
  const float scale = static_cast<float>(1.0 / fmax(sqrt(warp_sum(square)), 1e-12));
  double rest = 0;
  for (int64_t col = lane; col < cols; col += 32) {
    const float value = col < matrix.cols ? x[col] * scale : 0.0f;
    const Bits rounded = Element::round(value);
    put(col, rounded);
    const double error = double(value) - double(Element::value(rounded));
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

void unit_rows(const Rows& matrix, const UnitRows& out, cudaStream_t stream) {
  if (out.padded == 0) return;
  const unsigned blocks = blocks_for(out.padded, kWarps);
  if (out.precision == Precision::tf32)
    CFR_LAUNCH(round_rows<Tf32>, blocks, kThreads, 0, stream, matrix, out);
  else
    CFR_LAUNCH(round_rows<Bfloat16>, blocks, kThreads, 0, stream, matrix, out);
  check(cudaGetLastError(), "unit rows");
}

}  // namespace cfr::cuda
