// What this binary was built from and how; no torch header, no pybind11.
#pragma once

namespace cfr {

struct BuildInfo {
  const char* compiler;
  const char* flags;
  const char* cuda_archs;  // empty when built without CUDA
  const char* sources;     // hash of csrc
};

BuildInfo build_info();

}  // namespace cfr
