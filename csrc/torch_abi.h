// Before any header of torch: everything used exists since torch 2.11, so the binary serves that and every later
// one. Not a compiler option: torch 2.11's own copy of pybind11 refuses to be compiled with it.
#pragma once

#define TORCH_TARGET_VERSION 0x020b000000000000
