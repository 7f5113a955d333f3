// What every kernel launch needs: the tensor's device made current, and each call checked.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

// Tests run the kernels on the CPU, where `<<<>>>` and extern shared arrays do not exist (CFR_EMULATION).
#ifdef CFR_EMULATION
#define CFR_LAUNCH(kernel, grid, block, shared, stream, ...) \
  emulation::launch(grid, block, shared, [&] { kernel(__VA_ARGS__); })
#define CFR_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulation::dynamic_memory())
#else
#define CFR_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define CFR_DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(16) unsigned char cfr_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(cfr_dynamic_shared)
#endif

namespace cfr::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(status) + ": " +
                             cudaGetErrorString(status));
}

// Makes `device` current for a scope.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_), "cudaGetDevice");
    if (previous_ != device) check(cudaSetDevice(device), "cudaSetDevice");
  }
  ~DeviceGuard() { cudaSetDevice(previous_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
};

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace cfr::cuda
