// How far one tensor is from another: octet.metrics.
#include <fmt/format.h>

#include "octet/debug/detections.h"
#include "octet/debug/metrics.h"
#include "python/bindings.h"

namespace octet::python {
namespace {

void bind_statistics(py::module_& m) {
  using debug::ErrorStatistics;
  py::class_<ErrorStatistics>(m, "ErrorStatistics",
                              "Sums over all pairs that were added, from which metrics follow.")
      .def(py::init<>())
      .def("add", &ErrorStatistics::add, py::arg("x"), py::arg("y"),
           "x is the reference; quantized tensors are dequantized.", Release())
      .def("merge", &ErrorStatistics::merge, py::arg("other"))
      .def_property_readonly("count", &ErrorStatistics::count)
      .def_property_readonly("signal", &ErrorStatistics::signal)
      .def_property_readonly("noise", &ErrorStatistics::noise)
      .def("sqnr", &ErrorStatistics::sqnr, "In dB: infinite without noise.")
      .def("normalized_l2_error", &ErrorStatistics::normalized_l2_error)
      .def("cosine_similarity", &ErrorStatistics::cosine_similarity)
      .def("max_abs_error", &ErrorStatistics::max_abs_error);
  using debug::Share;
  py::class_<Share>(m, "Share", "How many of a number of decisions are as they should be.")
      .def(py::init<>())
      .def_readonly("hits", &Share::hits)
      .def_readonly("count", &Share::count)
      .def("value", &Share::value, "hits / count, 0..1; NaN without any.")
      .def(
          "__iadd__", [](Share& a, const Share& b) { return a += b; }, py::is_operator())
      .def("__float__", &Share::value)
      .def("__repr__", [](const Share& s) {
        return fmt::format("Share({} of {}: {:.4f})", s.hits, s.count, s.value());
      });
}

void bind_of_pairs(py::module_& m) {
  const auto x = py::arg("x"), y = py::arg("y");
  m.def("compute_sqnr", &debug::compute_sqnr, x, y,
        "Signal to quantization noise in dB: infinite without noise. x is the reference.",
        Release());
  m.def("compute_normalized_l2_error", &debug::compute_normalized_l2_error, x, y,
        "|x - y| / |x|, 0 or more.", Release());
  m.def("compute_cosine_similarity", &debug::compute_cosine_similarity, x, y,
        "x.y / (|x| |y|), -1..1.", Release());
  m.def("compute_max_abs_error", &debug::compute_max_abs_error, x, y, "max |x - y|.", Release());
  m.def("compute_kl_divergence", &debug::compute_kl_divergence, x, y, py::arg("bins") = 64,
        "The divergence of the distribution of y's values from that of x's, in nats.", Release());
  m.def("argmax_agreement", &debug::argmax_agreement, x, y,
        "Of scores (..., classes): at how many places both have their largest score in one class.",
        Release());
  m.def("sequence_agreement", &debug::sequence_agreement, x, y, py::arg("blank") = 0,
        "Of scores (N, steps, classes): for how many samples both read the same sequence "
        "(best path decoding).",
        Release());
  m.def("character_agreement", &debug::character_agreement, x, y, py::arg("blank") = 0,
        "The same character by character: 1 - value() is the character error rate.", Release());
  m.def("mask_overlap", &debug::mask_overlap, x, y, py::arg("threshold") = 0.5F,
        "Of masks: the intersection over union of the elements at the threshold or above.",
        Release());
  m.def("top_k", &debug::top_k, py::arg("scores"), py::arg("labels"), py::arg("k") = 1,
        "Of scores (N, classes) and labels (N): how many labels are among the k best.", Release());
}

void bind_detections(py::module_& m) {
  using debug::Detection;
  using debug::Detections;
  py::class_<Detection>(m, "Detection", "A thing in a picture; x0 <= x1 and y0 <= y1.")
      .def(py::init([](int64_t category, float score, float x0, float y0, float x1, float y1) {
             return Detection{category, score, x0, y0, x1, y1};
           }),
           py::arg("category"), py::arg("score"), py::arg("x0"), py::arg("y0"), py::arg("x1"),
           py::arg("y1"))
      .def_readonly("category", &Detection::category)
      .def_readonly("score", &Detection::score)
      .def_readonly("x0", &Detection::x0)
      .def_readonly("y0", &Detection::y0)
      .def_readonly("x1", &Detection::x1)
      .def_readonly("y1", &Detection::y1)
      .def("__repr__", [](const Detection& d) {
        return fmt::format("Detection(category={}, score={}, x0={}, y0={}, x1={}, y1={})",
                           d.category, d.score, d.x0, d.y0, d.x1, d.y1);
      });
  m.def(
      "detections",
      [](const Tensor& scores, const Tensor& corners, float min_score, float max_overlap,
         bool background) {
        return debug::detections(scores, corners, {min_score, max_overlap, background});
      },
      py::arg("scores"), py::arg("corners"), py::arg("min_score") = 0.5F,
      py::arg("max_overlap") = 0.5F, py::arg("background") = false,
      "Of N pictures, from scores (N, boxes, categories) and corners (N, boxes, 4): the boxes that "
      "non-maximum suppression leaves.",
      Release());
  m.def("found_again", &debug::found_again, py::arg("expected"), py::arg("got"),
        py::arg("least") = 0.5F, "How many of the expected detections are in `got`.");
  m.def("mean_average_precision", &debug::mean_average_precision, py::arg("expected"),
        py::arg("got"), py::arg("least") = 0.5F, "Mean average precision, 0..1.");
}

}  // namespace

void bind_metrics(py::module_& module) {
  py::module_ m = module.def_submodule("_metrics", "How far one tensor is from another.");
  bind_statistics(m);
  bind_of_pairs(m);
  bind_detections(m);
}

}  // namespace octet::python
