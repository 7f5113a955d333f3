// The Python module of the binary: what is no tensor op. No torch headers here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "build_info.h"
#include "cpu/gemm.h"
#include "kernels.h"

namespace py = pybind11;

PYBIND11_MODULE(_native, m) {
  m.def("build_info", [] {
    const cfr::BuildInfo info = cfr::build_info();
    py::dict out;
    out["compiler"] = info.compiler;
    out["flags"] = info.flags;
    out["cuda_archs"] = info.cuda_archs;
    out["sources"] = info.sources;
    return out;
  });
  m.def("cpu_kernels", &cfr::cpu::kernel_names, "CPU variants that this processor can run, the best first.");
  m.def("fma_peak", &cfr::cpu::fma_peak, py::call_guard<py::gil_scoped_release>(),
        "Floating-point operations a second of multiply-adds in registers, on all threads.");
  m.def("current_cpu_kernels", [] { return cfr::cpu::kernels().name; });
  m.def("use_cpu_kernels", [](const std::string& name) {
    if (!cfr::cpu::use_kernels(name)) throw py::value_error("no such CPU variant here: " + name);
  });
}
