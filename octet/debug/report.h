#pragma once
// What a Comparison shows: as JSON, as a page for a browser, as JUnit XML, as text.
//
//   auto page = [](const debug::Comparison& c) {  // what debug::compare found
//     std::cout << debug::html_report(c, {.float_name = "net.onnx"});
//   };

#include <string>
#include <vector>

#include "octet/debug/compare.h"

namespace octet::debug {

// A network that was tried on the way to the quantized one.
struct TriedNetwork {
  std::string name;
  double score = 0, cost = 0, bytes = 0;
  bool on_curve = false;  // none of the others is better in score and cost both
  bool chosen = false;    // it is the quantized one
};

struct ReportOptions {
  std::string float_name = "float", quantized_name = "quantized";  // of the models, for headings
  std::string data;  // what the samples are, for the heading
  // The page shows these as a curve of score against cost, and as a table; none: it has neither.
  std::vector<TriedNetwork> tried = {};
  std::string score_name = "score";  // what their scores are
};

// One JSON object on one line. Decibels that are infinite are "exact", what is not known is null.
// With `histograms` also the histograms, as runs of counts from `first` on.
std::string to_json(const Comparison& comparison, const ReportOptions& options = {},
                    bool histograms = false);

// One file that needs no network: the summary, the graph, a table, and for each layer its
// histogram, calibration, worst channels and what was tried. UTF-8.
std::string html_report(const Comparison& comparison, const ReportOptions& options = {});

// A condition that a comparison must meet, and whether it does.
struct Gate {
  std::string name;     // "max-drop"
  std::string message;  // "top-1 fell by 0.20 points (may fall by 0.5)"
  bool passed = true;
};
// One test case for each gate.
std::string junit_report(const std::vector<Gate>& gates, const std::string& suite);

}  // namespace octet::debug
