// Which tiles a launch uses on a device.
#pragma once

#include <cstdlib>

#include "hopper_tiles.h"
#include "tiles.h"

namespace cfr::cuda {

struct TileDevice {
  int processors = 0;
  int stages = 4;      // 2 to 4, as shared memory allows; `shared` more bytes are the kernel's own
  bool wgmma = false;  // Hopper's own instructions: asked for by CFR_FAST_HOPPER=1, and there

  TileDevice(int device, Precision precision, int64_t shared) {
    int bytes = 0;
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "number of processors");
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "shared memory");
    while (stages > 2 && stages * int64_t(kStageBytes) + shared > bytes) --stages;
    const char* const asked = std::getenv("CFR_FAST_HOPPER");
    if (precision != Precision::bf16 || !asked || asked[0] != '1' || asked[1]) return;
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "compute capability");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "compute capability");
    wgmma = major == 9 && minor == 0;
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
    if (device.wgmma) return call(Use<WgmmaTiles>{});
    if (device.stages == 4) return call(Use<MmaTiles<Element, 4>>{});
  }
  if (device.stages >= 3) return call(Use<MmaTiles<Element, 3>>{});
  call(Use<MmaTiles<Element, 2>>{});
}

// Before a kernel of such tiles is launched.
template <class Tiles, class Kernel>
void admit(Kernel kernel, const char* what) {
  if (Tiles::kTiled) {
    cudaFuncAttributes found;
    check(cudaFuncGetAttributes(&found, kernel), what);
    if (found.maxThreadsPerBlock < kTileThreads)  // compiled empty: see WgmmaTiles::kThreads
      throw std::runtime_error("CFR_FAST_HOPPER=1: expected a library with code for 9.0a (TORCH_CUDA_ARCH_LIST)");
  }
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tiles::kSharedBytes), what);
}

}  // namespace cfr::cuda
