#include "build_info.h"

namespace cfr {
namespace {

// The loader looks for this text in a binary before it loads it.
constexpr char kMarker[] = "CFR_FAST_SOURCES=" CFR_FAST_SOURCES;

}  // namespace

BuildInfo build_info() {
  return {__VERSION__, CFR_FAST_FLAGS, CFR_FAST_CUDA_ARCHS, kMarker + sizeof("CFR_FAST_SOURCES=") - 1};
}

}  // namespace cfr
