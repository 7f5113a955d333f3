// Which tiles a launch uses on a device.
#pragma once

#include <cstdlib>

#include "hopper_tiles.h"
#include "tiles.h"

namespace cfr::cuda {

// Launched by nobody: whether the library has code of such tiles for a device (see WgmmaTiles::kThreads).
template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads) has_code() {}

struct TileDevice {
  int processors = 0;
  int stages = 4;      // 2 to 4, as shared memory allows; `shared` more bytes are the kernel's own
  bool wgmma = false;  // Hopper's own instructions: there, and not turned off by CFR_FAST_HOPPER=0

  TileDevice(int device, Precision precision, int64_t shared) {
    int bytes = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "number of processors");
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "shared memory");
    while (stages > 2 && stages * int64_t(kStageBytes) + shared > bytes) --stages;
    const char* const asked = std::getenv("CFR_FAST_HOPPER");
    if (precision != Precision::bf16 || (asked && asked[0] == '0' && !asked[1])) return;
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "compute capability");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "compute capability");
    if (major != 9 || minor != 0) return;
    cudaFuncAttributes found;
    check(cudaFuncGetAttributes(&found, has_code<WgmmaTiles<Bfloat16>>), "code for the device");
    wgmma = found.maxThreadsPerBlock >= kTileThreads;
  }
};

template <class Tiles_>
struct Use {
  using Tiles = Tiles_;
};

// call(Use<Tiles>{}); wide elements, the seldom choice, have three stages at most: fewer kernels.
template <class Element, class Call>
void with_tiles(const TileDevice& device, const Call& call) {
  if constexpr (sizeof(typename Element::Bits) == 2) {
    if (device.wgmma) return call(Use<WgmmaTiles<Element>>{});
    if (device.stages == 4) return call(Use<MmaTiles<Element, 4>>{});
  }
  if (device.stages >= 3) return call(Use<MmaTiles<Element, 3>>{});
  call(Use<MmaTiles<Element, 2>>{});
}

// Before a kernel of such tiles is launched.
template <class Tiles, class Kernel>
void admit(Kernel kernel, const char* what) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tiles::kSharedBytes), what);
}

}  // namespace cfr::cuda
