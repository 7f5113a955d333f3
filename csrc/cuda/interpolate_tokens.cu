// Pixel features as sparse linear combinations of tokens: a warp a pixel, whose sums stay in registers until whole.
#include "interpolation.h"
#include "launch.h"
#include "listed.h"

namespace cfr::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kFloats = 16;  // of a row in the registers of a lane

template <int kWidth>
__global__ void __launch_bounds__(32 * kWarps)
    interpolate(Rows tokens, Interpolation all, Listed list, float* out) {
  using Part = Window<kWidth, kFloats / kWidth>;
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (place >= list.size) return;
  const bool real = place < real_rows(list);
  PixelEntries entries(all, real ? listed_row(list, place) : 0, real);
  float* row = out + place * tokens.cols;
  const int cols = static_cast<int>(tokens.cols);
  for (int first = 0; first < cols; first += Part::kColumns) {
    Part sum;
    sum.interpolate(tokens, entries, first);
    sum.write(row, cols, first);
  }
}

}  // namespace

void interpolate_tokens(const Rows& tokens, const Interpolation& entries, const Listed& list, float* out, int device,
                        void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const unsigned blocks = blocks_for(list.size, kWarps);
  if (aligned_rows(tokens) && reinterpret_cast<uintptr_t>(out) % 16 == 0)
    CFR_LAUNCH((interpolate<4>), blocks, 32 * kWarps, 0, on, tokens, entries, list, out);
  else
    CFR_LAUNCH((interpolate<1>), blocks, 32 * kWarps, 0, on, tokens, entries, list, out);
  check(cudaGetLastError(), "interpolate_tokens: interpolate");
}

}  // namespace cfr::cuda
