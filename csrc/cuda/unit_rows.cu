// Norms, unit rows and their rounding errors, one warp a row.
#include "unit_rows.h"

#include "mma.h"
#include "vectors.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// A lane takes four neighbouring columns at a time.
template <class Element>
__global__ void round_rows(Rows matrix, bool aligned, UnitRows out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= out.padded) return;
  using Bits = typename Element::Bits;
  struct __align__(4 * sizeof(Bits)) Four {
    Bits bits[4];
  };
  const int cols = static_cast<int>(out.row_bytes / sizeof(Bits));
  if (row >= matrix.rows) {
    for (int col = 4 * lane; col < cols; col += 128) *reinterpret_cast<Four*>(out.byte(row, col * sizeof(Bits))) = {};
    return;
  }
  double square = 0;
  for (int col = 4 * lane; col < matrix.cols; col += 128) {
    const float4 x = read4(matrix, aligned, row, col);
    const float value[4] = {x.x, x.y, x.z, x.w};
    for (int i = 0; i < 4; ++i) square += double(value[i]) * value[i];
  }
  const float scale = static_cast<float>(1.0 / fmax(sqrt(warp_sum(square)), 1e-12));
  double rest = 0;
  for (int col = 4 * lane; col < cols; col += 128) {
    const float4 x = read4(matrix, aligned, row, col);
    const float value[4] = {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
    Four rounded;
    for (int i = 0; i < 4; ++i) {
      rounded.bits[i] = Element::round(value[i]);
      const double error = double(value[i]) - double(Element::value(rounded.bits[i]));
      rest += error * error;
    }
    *reinterpret_cast<Four*>(out.byte(row, col * sizeof(Bits))) = rounded;
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
    CFR_LAUNCH(round_rows<Tf32>, blocks, kThreads, 0, stream, matrix, is_aligned(matrix), out);
  else
    CFR_LAUNCH(round_rows<Bfloat16>, blocks, kThreads, 0, stream, matrix, is_aligned(matrix), out);
  check(cudaGetLastError(), "unit rows");
}

}  // namespace cfr::cuda
