// octet sensitivity MODEL --calibrate DATA
#include "octet/debug/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "cli/common.h"
#include "cli/config.h"
#include "octet/base/progress.h"
#include "octet/base/text.h"
#include "octet/debug/metrics.h"

namespace octet::cli {
namespace {

using debug::LayerSensitivity;
using debug::SensitivityMethod;

struct Options {
  std::string model, calibrate, method = "alone", qconfig, observer, state;
  std::vector<std::string> skip;
  bool json = false, curve = false;
  DataOptions sampling;
  ShapeOptions shape;
  RunOptions run;
};

// One point of the trade between accuracy, time and size: the worst `left_float` layers in float.
struct Point {
  size_t left_float = 0;
  double sqnr = 0, median_ms = 0;
  double top1 = NAN;  // 0..1; NaN without labels
  int64_t weight_bytes = 0;
};

struct Curve {
  std::vector<Point> points;
  double float_top1 = NAN;  // of the float network
};

// None, 1, 2, 4, ... and all layers left float, the worst first. `labels`: by batch, or none.
Curve measure_curve(const quant::ObservedGraphModule& prepared, const debug::Sensitivity& found,
                    const std::vector<std::vector<Tensor>>& samples,
                    const std::vector<Tensor>& labels, const std::vector<Tensor>& one_sample,
                    const graph::Graph& before) {
  std::vector<LayerSensitivity> order = found.layers;
  std::erase_if(order, [](const auto& s) { return s.left_float || s.op == "input"; });
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.share > b.share; });
  std::vector<std::string> layers;  // that can be left float
  for (const LayerSensitivity& s : order) layers.push_back(s.name);
  std::vector<size_t> counts{0};
  for (size_t n = 1; n < layers.size(); n *= 2) counts.push_back(n);
  counts.push_back(layers.size());
  const runtime::Program reference = runtime::compile(before);
  std::vector<std::vector<Tensor>> expected;
  Accuracy float_accuracy;
  for (size_t b = 0; b < samples.size(); ++b) {
    expected.push_back(reference.run(samples[b]));
    if (!labels.empty()) float_accuracy.add(expected[b][0], labels[b]);
  }
  std::vector<runtime::Program> programs;
  Curve curve;
  if (!labels.empty()) curve.float_top1 = float_accuracy.top1();
  for (size_t n : counts) {
    const graph::Graph g = debug::leaving_float(
        prepared, {layers.begin(), layers.begin() + static_cast<std::ptrdiff_t>(n)});
    programs.push_back(runtime::compile(g));
    debug::ErrorStatistics error;
    Accuracy accuracy;
    for (size_t b = 0; b < samples.size(); ++b) {
      const auto& x = expected[b];
      const auto y = programs.back().run(samples[b]);
      for (size_t i = 0; i < x.size(); ++i)
        if (is_floating(x[i].dtype())) error.add(x[i], y[i]);
      if (!labels.empty()) accuracy.add(y[0], labels[b]);
    }
    curve.points.push_back({.left_float = n,
                            .sqnr = error.sqnr(),
                            .top1 = labels.empty() ? NAN : accuracy.top1(),
                            .weight_bytes = weight_bytes(g)});
  }
  std::vector<const runtime::Program*> all;
  for (const runtime::Program& p : programs) all.push_back(&p);
  const std::vector<std::vector<Tensor>> inputs(all.size(), one_sample);
  const std::vector<Latency> times = measure(all, inputs, 0.3);
  for (size_t i = 0; i < curve.points.size(); ++i) curve.points[i].median_ms = times[i].median_ms;
  return curve;
}

const char* share_of(SensitivityMethod method) {
  return method == SensitivityMethod::without ? "gain" : "noise";
}

// What is to be said of a layer behind its numbers.
std::string finding(const LayerSensitivity& s) {
  if (s.fault != debug::Fault::none && !s.left_float) return debug::to_string(s.fault);
  return !s.left_float ? "" : s.reason.empty() ? "in float" : "in float: " + s.reason;
}

void print(const debug::Sensitivity& found, const Curve& curve) {
  size_t width = 5;
  for (const LayerSensitivity& s : found.layers)
    width = std::min<size_t>(std::max(width, s.name.size()), 44);
  fmt::print("all layers on codes: {:.1f} dB\n", found.all_sqnr);
  fmt::print("{:<{}}  {:<18} {:>8} {:>9} {:>10} {:>7}\n", "layer", width, "operator",
             share_of(found.method), "SQNR", "weights", "time");
  for (const LayerSensitivity& s : found.layers) {
    const std::string share = found.method == SensitivityMethod::without
                                  ? fmt::format("{:+.2f} dB", s.share)
                                  : fmt::format("{:.1f}%", 100 * s.share);
    fmt::print("{:<{}}  {:<18} {:>8} {:>9} {:>10} {:>6.1f}%{}{}\n", shorten(s.name, width), width,
               s.op, share, std::isinf(s.sqnr) ? "exact" : fmt::format("{:.1f} dB", s.sqnr),
               human_bytes(static_cast<double>(s.weight_bytes)), 100 * s.time_share,
               finding(s).empty() ? "" : "  ", finding(s));
  }
  for (const LayerSensitivity& s : found.layers)
    if (!s.sentence.empty()) fmt::print("{} ({}): {}.\n", s.name, s.op, s.sentence);
  if (curve.points.empty()) return;
  const bool top1 = !std::isnan(curve.float_top1);
  if (top1) fmt::print("\ntop-1 in float: {:.4f}", curve.float_top1);
  fmt::print("\n{:>10} {}{:>9} {:>10} {:>10}\n", "left float", top1 ? "  top-1 " : "", "SQNR",
             "one sample", "weights");
  for (const Point& p : curve.points)
    fmt::print("{:>10} {}{:>9} {:>7.3f} ms {:>10}\n", p.left_float,
               top1 ? fmt::format("{:>7.4f} ", p.top1) : "",
               std::isinf(p.sqnr) ? "exact" : fmt::format("{:.1f} dB", p.sqnr), p.median_ms,
               human_bytes(static_cast<double>(p.weight_bytes)));
}

JsonValue to_json(const debug::Sensitivity& found, const Curve& curve) {
  JsonValue layers = JsonValue::array(), points = JsonValue::array();
  for (const LayerSensitivity& s : found.layers) {
    JsonValue layer = JsonValue::object({{"name", s.name},
                                         {"op", s.op},
                                         {"sqnr_db", s.sqnr},
                                         {share_of(found.method), s.share},
                                         {"weight_bytes", s.weight_bytes},
                                         {"time_share", s.time_share}});
    if (s.left_float) layer.set("left_float", true);
    if (!s.reason.empty()) layer.set("reason", s.reason);
    if (s.fault != debug::Fault::none) {
      layer.set("fault", debug::to_string(s.fault));
      layer.set("sentence", s.sentence);
    }
    layers.push_back(std::move(layer));
  }
  const bool top1 = !std::isnan(curve.float_top1);
  for (const Point& p : curve.points) {
    JsonValue point = JsonValue::object({{"left_float", p.left_float},
                                         {"sqnr_db", p.sqnr},
                                         {"median_ms", p.median_ms},
                                         {"weight_bytes", p.weight_bytes}});
    if (top1) point.set("top1", p.top1);
    points.push_back(std::move(point));
  }
  JsonValue json = JsonValue::object({{"method", std::string(to_string(found.method))},
                                      {"all_sqnr_db", found.all_sqnr},
                                      {"layers", layers},
                                      {"curve", points}});
  if (top1) json.set("float_top1", curve.float_top1);
  return json;
}

void run(const Options& o) {
  o.run.apply();
  const graph::Graph graph = load_model(o.model, o.shape.shapes());
  const Dataset dataset = o.sampling.open(o.calibrate, graph);
  const int64_t count = o.sampling.count(dataset);
  const auto prepared =
      quant::prepare_fx(graph,
                        quant::QConfigMapping(chosen_qconfig(o.qconfig, o.observer,
                                                             quant::get_native_backend_config())),
                        {.skip = o.skip});
  // Top-1 is measured where it can be.
  const bool classes = dataset.has_labels() && graph.type(graph.outputs().at(0)).dim() == 2;
  if (classes) check_labels(dataset, graph, count);
  std::vector<std::vector<Tensor>> samples;
  std::vector<Tensor> labels;
  const int64_t step = batch_size(dataset, 32);
  for (int64_t i = 0; i < count; i += step) {
    const Batch batch = dataset.get(i, std::min(step, count - i));
    samples.push_back(ordered_inputs(graph, batch));
    if (classes) labels.push_back(batch.labels);
    prepared->forward(samples.back());
  }
  debug::SensitivityOptions options;
  options.method = debug::parse_sensitivity_method(o.method);
  options.state = o.state;
  std::unique_ptr<Progress> bar;
  options.progress = [&](size_t done, size_t all) {
    if (!bar) bar = std::make_unique<Progress>("measuring layers", static_cast<int64_t>(all));
    bar->advance(1);
    if (done == all) bar.reset();
  };
  const debug::Sensitivity found = debug::sensitivity(*prepared, samples, options);
  Curve curve;
  if (o.curve) {
    const std::vector<Tensor> one = ordered_inputs(graph, dataset.get(0, batch_size(dataset, 1)));
    curve = measure_curve(*prepared, found, samples, labels, one, graph);
  }
  if (o.json)
    print_json(to_json(found, curve));
  else
    print(found, curve);
}

void add_sensitivity(CommandLine& program) {
  auto o = std::make_shared<Options>();
  o->sampling.samples = 64;
  Command command =
      program.add_command("sensitivity", "which layers lose the accuracy when they are quantized");
  command.add_option("MODEL", o->model, "the float network: .onnx or .octet")
      .type_name("")
      .required();
  command.add_option("--calibrate", o->calibrate, "sample inputs, which are measured on too")
      .type_name("DATA")
      .required();
  command
      .add_option("--method", o->method,
                  "alone (default): one layer in 8 bits; without: one in float; estimate: alone, "
                  "from one pass")
      .type_name("METHOD")
      .check(one_of({"alone", "without", "estimate"}));
  command.add_option("--qconfig", o->qconfig, "as of octet quantize").type_name("NAME");
  command.add_option("--observer", o->observer, "as of octet quantize").type_name("NAME");
  command.add_option("--skip", o->skip, "operators to leave float: a name, glob, or re:EXPRESSION")
      .type_name("PATTERN")
      .one_value();
  command
      .add_option("--state", o->state,
                  "a file with what is measured so far; with it, work that was cut off goes on")
      .type_name("FILE");
  command.add_flag(
      "--curve", o->curve,
      "measure top-1 (with labels), SQNR, time and size with the worst 1, 2, 4, ... layers\n"
      "left float");
  command.add_flag("--json", o->json, "print one JSON object");
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer("Example: octet sensitivity net.onnx --calibrate images.npz --method without");
  command.callback([o] { run(*o); });
}

const RegisteredCommand g_sensitivity("sensitivity", add_sensitivity);

}  // namespace
}  // namespace octet::cli
