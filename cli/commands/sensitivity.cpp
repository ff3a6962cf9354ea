// octet sensitivity MODEL --calibrate DATA
#include "octet/debug/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
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
  int64_t weight_bytes = 0;
};

// None, 1, 2, 4, ... and all layers left float, the worst first.
std::vector<Point> measure_curve(const quant::ObservedGraphModule& prepared,
                                 const debug::Sensitivity& found,
                                 const std::vector<std::vector<Tensor>>& samples,
                                 const std::vector<Tensor>& one_sample,
                                 const graph::Graph& before) {
  std::vector<size_t> counts{0};
  for (size_t n = 1; n < found.layers.size(); n *= 2) counts.push_back(n);
  counts.push_back(found.layers.size());
  const runtime::Program reference = runtime::compile(before);
  std::vector<std::vector<Tensor>> expected;
  for (const auto& batch : samples) expected.push_back(reference.run(batch));
  std::vector<runtime::Program> programs;
  std::vector<Point> points;
  for (size_t n : counts) {
    std::vector<std::string> names;
    for (size_t i = 0; i < n; ++i) names.push_back(found.layers[i].name);
    const graph::Graph g = debug::leaving_float(prepared, names);
    programs.push_back(runtime::compile(g));
    debug::ErrorStatistics error;
    for (size_t b = 0; b < samples.size(); ++b) {
      const auto& x = expected[b];
      const auto y = programs.back().run(samples[b]);
      for (size_t i = 0; i < x.size(); ++i)
        if (is_floating(x[i].dtype())) error.add(x[i], y[i]);
    }
    points.push_back({n, error.sqnr(), 0, weight_bytes(g)});
  }
  std::vector<const runtime::Program*> all;
  for (const runtime::Program& p : programs) all.push_back(&p);
  const std::vector<std::vector<Tensor>> inputs(all.size(), one_sample);
  const std::vector<Latency> times = measure(all, inputs, 0.3);
  for (size_t i = 0; i < points.size(); ++i) points[i].median_ms = times[i].median_ms;
  return points;
}

const char* share_of(SensitivityMethod method) {
  return method == SensitivityMethod::without ? "gain" : "noise";
}

void print(const debug::Sensitivity& found, const std::vector<Point>& curve) {
  size_t width = 5;
  for (const LayerSensitivity& s : found.layers)
    width = std::min<size_t>(std::max(width, s.name.size()), 44);
  fmt::print("all layers on codes: {:.1f} dB\n", found.all_sqnr);
  fmt::print("{:<{}}  {:<18} {:>8} {:>9} {:>10}\n", "layer", width, "operator",
             share_of(found.method), "SQNR", "weights");
  for (const LayerSensitivity& s : found.layers) {
    const std::string share = found.method == SensitivityMethod::without
                                  ? fmt::format("{:+.2f} dB", s.share)
                                  : fmt::format("{:.1f}%", 100 * s.share);
    fmt::print("{:<{}}  {:<18} {:>8} {:>6.1f} dB {:>10}\n", shorten(s.name, width), width, s.op,
               share, s.sqnr, human_bytes(static_cast<double>(s.weight_bytes)));
  }
  if (curve.empty()) return;
  fmt::print("\n{:>10} {:>9} {:>10} {:>10}\n", "left float", "SQNR", "one sample", "weights");
  for (const Point& p : curve)
    fmt::print("{:>10} {:>6.1f} dB {:>7.3f} ms {:>10}\n", p.left_float, p.sqnr, p.median_ms,
               human_bytes(static_cast<double>(p.weight_bytes)));
}

JsonValue to_json(const debug::Sensitivity& found, const std::vector<Point>& curve) {
  JsonValue layers = JsonValue::array(), points = JsonValue::array();
  for (const LayerSensitivity& s : found.layers)
    layers.push_back(JsonValue::object({{"name", s.name},
                                        {"op", s.op},
                                        {"sqnr_db", s.sqnr},
                                        {share_of(found.method), s.share},
                                        {"weight_bytes", s.weight_bytes}}));
  for (const Point& p : curve)
    points.push_back(JsonValue::object({{"left_float", p.left_float},
                                        {"sqnr_db", p.sqnr},
                                        {"median_ms", p.median_ms},
                                        {"weight_bytes", p.weight_bytes}}));
  return JsonValue::object({{"method", std::string(to_string(found.method))},
                            {"all_sqnr_db", found.all_sqnr},
                            {"layers", layers},
                            {"curve", points}});
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
  std::vector<std::vector<Tensor>> samples;
  const int64_t step = batch_size(dataset, 32);
  for (int64_t i = 0; i < count; i += step) {
    samples.push_back(ordered_inputs(graph, dataset.get(i, std::min(step, count - i))));
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
  std::vector<Point> curve;
  if (o.curve) {
    const std::vector<Tensor> one = ordered_inputs(graph, dataset.get(0, batch_size(dataset, 1)));
    curve = measure_curve(*prepared, found, samples, one, graph);
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
  command.add_flag("--curve", o->curve,
                   "measure SQNR, time and size with the worst 1, 2, 4, ... layers left float");
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
