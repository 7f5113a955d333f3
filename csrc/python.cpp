// The Python module of the binary: what is no tensor op. No torch headers here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "build_info.h"
#include "cpu/gemm.h"
#include "evaluation/defect_ranks.h"
#include "kernels.h"

namespace py = pybind11;

namespace {

template <class Score>
cfr::evaluation::Image<Score> image_of(const py::array& map, const py::array& defect) {
  if (!py::isinstance<py::array_t<Score, py::array::c_style>>(map) || map.ndim() != 2)
    throw py::value_error("map: expected contiguous [H, W] of one float type");
  if (!py::isinstance<py::array_t<bool, py::array::c_style>>(defect) || defect.ndim() != 2 ||
      defect.shape(0) != map.shape(0) || defect.shape(1) != map.shape(1))
    throw py::value_error("defect: expected contiguous bool of the map's shape");
  return {static_cast<const Score*>(map.data()), static_cast<const uint8_t*>(defect.data()), map.shape(0),
          map.shape(1)};
}

template <class Value>
py::array array_of(const std::vector<Value>& values) {
  return py::array(py::ssize_t(values.size()), values.data());
}

template <class Score>
void bind_ranks(py::module_& m, const std::string& dtype) {
  using Ranking = cfr::evaluation::Ranking<Score>;
  using Vector = py::array_t<Score, py::array::c_style>;
  using Shares = py::array_t<double, py::array::c_style>;
  m.def(("defects_" + dtype).c_str(), [](const py::array& map, const py::array& defect) {
    const auto found = cfr::evaluation::defects_of(image_of<Score>(map, defect));
    return py::make_tuple(array_of(found.scores), array_of(found.shares), found.regions);
  }, py::arg("map"), py::arg("defect"));
  py::class_<Ranking>(m, ("Ranking_" + dtype).c_str())
      .def(py::init([](const Vector& scores, const Shares& shares, int64_t regions) {
             if (scores.size() == 0 || scores.size() != shares.size() || regions < 1)
               throw py::value_error("scores: expected at least one, a share for each, and a region");
             const py::gil_scoped_release released;
             return std::make_unique<Ranking>(scores.data(), shares.data(), scores.size(), regions);
           }),
           py::arg("scores"), py::arg("shares"), py::arg("regions"))
      .def("add", [](Ranking& ranking, const py::array& map, const py::array& defect) {
        const auto image = image_of<Score>(map, defect);
        const py::gil_scoped_release released;
        ranking.add(image);
      }, py::arg("map"), py::arg("defect"))
      .def("finish", [](Ranking& ranking) {
        const auto ranks = ranking.finish();
        return py::make_tuple(array_of(ranks.count), array_of(ranks.overlap), array_of(ranks.below),
                              array_of(ranks.up_to));
      });
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
  bind_ranks<float>(m, "float32");
  bind_ranks<double>(m, "float64");
}
