// The Python module of the binary: what is no tensor op. No torch headers here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "build_info.h"
#include "cpu/gemm.h"
#include "evaluation/defect_ranks.h"
#include "kernels.h"

namespace py = pybind11;

namespace {

template <class Score>
py::tuple defect_ranks(const std::vector<py::array>& maps, const std::vector<py::array>& defects) {
  if (maps.size() != defects.size()) throw py::value_error("defects: expected one for each map");
  std::vector<cfr::evaluation::Image<Score>> images;
  for (size_t i = 0; i < maps.size(); ++i) {
    if (!py::isinstance<py::array_t<Score, py::array::c_style>>(maps[i]) || maps[i].ndim() != 2)
      throw py::value_error("maps: expected contiguous [H, W] of one float type");
    if (!py::isinstance<py::array_t<bool, py::array::c_style>>(defects[i]) || defects[i].ndim() != 2 ||
        defects[i].shape(0) != maps[i].shape(0) || defects[i].shape(1) != maps[i].shape(1))
      throw py::value_error("defects: expected contiguous bool of the maps' shapes");
    images.push_back({static_cast<const Score*>(maps[i].data()), static_cast<const uint8_t*>(defects[i].data()),
                      maps[i].shape(0), maps[i].shape(1)});
  }
  cfr::evaluation::DefectRanks ranks;
  {
    const py::gil_scoped_release released;
    ranks = cfr::evaluation::defect_ranks(images);
  }
  const auto array = [](const auto& values) { return py::array(py::ssize_t(values.size()), values.data()); };
  return py::make_tuple(array(ranks.count), array(ranks.overlap), array(ranks.below), array(ranks.up_to));
}

}  // namespace

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
  m.def("defect_ranks_float32", &defect_ranks<float>, py::arg("maps"), py::arg("defects"));
  m.def("defect_ranks_float64", &defect_ranks<double>, py::arg("maps"), py::arg("defects"));
}
