// octet check MODEL [--calibrate DATA]
#include "octet/debug/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "cli/calibrate.h"
#include "cli/common.h"
#include "cli/config.h"
#include "octet/base/error.h"
#include "octet/base/progress.h"
#include "octet/base/text.h"
#include "octet/io/onnx/import.h"

namespace octet::cli {
namespace {

using debug::Check;
using debug::CheckedKind;

struct Options {
  std::string model, calibrate;
  bool json = false;
  QuantizeChoice choice;
  ShapeOptions shape;
  DataOptions sampling;
  RunOptions run;
};

// -- data -----------------------------------------------------------------------------------------

// Reads the first `count` samples; each that cannot be given to the model is a problem, of which
// the first few are told.
void read_samples(Check& found, const Dataset& dataset, int64_t count) {
  constexpr int64_t kShown = 3;
  int64_t bad = 0;
  const auto read = [&](int64_t begin, int64_t size) {
    try {
      dataset.get(begin, size);
      return true;
    } catch (const Error& e) {
      if (size > 1) return false;
      if (bad++ < kShown) found.add_problem(e);
      return true;
    }
  };
  Progress bar("reading", count);
  const int64_t step = batch_size(dataset, 32);
  for (int64_t i = 0; i < count; i += step) {
    const int64_t size = std::min(step, count - i);
    if (!read(i, size))
      for (int64_t k = i; k < i + size; ++k) read(k, 1);
    bar.advance(size);
  }
  if (bad > kShown)
    found.problems.push_back(
        {ErrorCode::invalid_argument,
         fmt::format("{}: and {} more samples", dataset.description(), bad - kShown)});
}

// -- output ---------------------------------------------------------------------------------------

// The operators of a model that could not be read, as ONNX names them.
using Operators = std::vector<io::OnnxOperator>;

JsonValue to_json(const Operators& operators) {
  JsonValue list = JsonValue::array();
  for (const io::OnnxOperator& op : operators) {
    JsonValue refused = JsonValue::array();
    for (const auto& [reason, nodes] : op.refused)
      refused.push_back(JsonValue::object({{"reason", reason}, {"nodes", nodes}}));
    list.push_back(JsonValue::object(
        {{"op", op.op}, {"nodes", op.nodes}, {"refused", refused}, {"behind", op.behind}}));
  }
  return list;
}

// What was found besides: whether a sample was made up, and what the samples are worth.
struct Sampled {
  bool made_up = true;
  std::optional<debug::CalibrationQuality> quality;
};

JsonValue to_json(const Options& o, const Check& c, const Operators& operators,
                  const Sampled& sampled) {
  JsonValue kinds = JsonValue::array(), problems = JsonValue::array();
  for (const CheckedKind& kind : c.kinds) {
    JsonValue left = JsonValue::array();
    for (const debug::LeftFloat& l : kind.left_float)
      left.push_back(JsonValue::object({{"reason", l.reason}, {"nodes", l.nodes}}));
    JsonValue json = JsonValue::object({{"op", kind.op}, {"nodes", kind.nodes}});
    if (c.decided) json.set("quantized", kind.quantized);
    json.set("weight_bytes", kind.weight_bytes);
    json.set("left_float", left);
    kinds.push_back(std::move(json));
  }
  for (const Check::Problem& p : c.problems)
    problems.push_back(
        JsonValue::object({{"code", std::string(to_string(p.code))}, {"message", p.message}}));
  JsonValue json = JsonValue::object({{"model", o.model},
                                      {"ok", c.ok()},
                                      {"problems", problems},
                                      {"warnings", c.warnings},
                                      {"operators", c.nodes()}});
  if (c.decided) json.set("quantized_operators", c.quantized());
  json.set("kinds", kinds);
  json.set("float_weight_bytes", c.float_weight_bytes);
  if (c.quantized_weight_bytes) json.set("int8_weight_bytes", c.quantized_weight_bytes);
  if (c.float_memory_bytes) {
    json.set("float_memory_bytes", c.float_memory_bytes);
    json.set("int8_memory_bytes", c.int8_memory_bytes);
  }
  if (!std::isnan(c.multiply_adds)) json.set("multiply_adds", c.multiply_adds);
  if (!std::isnan(c.float_ms)) json.set("float_ms", c.float_ms);
  if (!std::isnan(c.int8_ms)) json.set("int8_ms", c.int8_ms);
  if (!c.not_run.empty()) json.set("not_run", c.not_run);
  if (sampled.quality) json.set("calibration", calibration_json(*sampled.quality));
  if (!operators.empty()) json.set("onnx_operators", to_json(operators));
  return json;
}

// "a, b and 3 more"
std::string some_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 4;
  const size_t shown = std::min(names.size(), kShown);
  std::string text = fmt::format(
      "{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

// On a terminal rows with operators that stay float are yellow.
void print_kinds(const Check& c, const std::string& widths) {
  size_t width = 8;
  for (const CheckedKind& kind : c.kinds) width = std::max(width, kind.op.size());
  const bool colour = colour_wanted(1);
  fmt::print("{:<{}} {:>6} {:>10} {:>6} {:>10}\n", "operator", width, "nodes", "in " + widths,
             "float", "weights");
  for (const CheckedKind& kind : c.kinds) {
    const auto number = [&](int64_t n) { return c.decided ? std::to_string(n) : std::string("?"); };
    const bool marked = colour && c.decided && kind.quantized < kind.nodes;
    fmt::print("{}{:<{}} {:>6} {:>10} {:>6} {:>10}{}\n", marked ? "\x1b[33m" : "", kind.op, width,
               kind.nodes, number(kind.quantized), number(kind.nodes - kind.quantized),
               kind.weight_bytes ? human_bytes(static_cast<double>(kind.weight_bytes)) : "-",
               marked ? "\x1b[0m" : "");
  }
  for (const CheckedKind& kind : c.kinds)
    for (const debug::LeftFloat& l : kind.left_float)
      fmt::print("  stays float: {} ({}): {}\n", some_of(l.nodes), kind.op, l.reason);
}

// What of a model is read and what is refused: each operator, and then the nodes that are refused
// with the reason. On a terminal rows with such nodes are yellow.
void print_refused(const Options& o, const Operators& operators, const std::string& cure) {
  size_t width = 8;
  int64_t nodes = 0, refused = 0, kinds = 0;
  const auto refused_of = [](const io::OnnxOperator& op) {
    int64_t n = 0;
    for (const auto& r : op.refused) n += std::ssize(r.nodes);
    return n;
  };
  for (const io::OnnxOperator& op : operators) {
    width = std::max(width, op.op.size());
    nodes += op.nodes;
    refused += refused_of(op);
    kinds += refused_of(op) > 0;
  }
  fmt::print("{}: {} of {} operators are refused, in {} of {} nodes\n", o.model, kinds,
             operators.size(), refused, nodes);
  fmt::print("{:<{}} {:>6} {:>10} {:>8} {:>8}\n", "operator", width, "nodes", "supported",
             "refused", "behind");
  const bool colour = colour_wanted(1);
  for (const io::OnnxOperator& op : operators) {
    const int64_t n = refused_of(op);
    fmt::print("{}{:<{}} {:>6} {:>10} {:>8} {:>8}{}\n", colour && n ? "\x1b[33m" : "", op.op, width,
               op.nodes, op.nodes - n - op.behind, n, op.behind, colour && n ? "\x1b[0m" : "");
  }
  for (const io::OnnxOperator& op : operators)
    for (const auto& [reason, names] : op.refused)
      fmt::print("  refused: {} ({}): {}\n", fmt::join(names, ", "), op.op,
                 reason.empty() ? "octet has no such operator" : reason);
  if (std::any_of(operators.begin(), operators.end(), [](const auto& op) { return op.behind > 0; }))
    fmt::print("  behind: nodes that read from a refused one, of which nothing is known\n");
  fmt::print("cure: {}\n", cure);
}

std::string count_text(double n) {
  return n >= 1e9   ? fmt::format("{:.2f} G", n / 1e9)
         : n >= 1e6 ? fmt::format("{:.1f} M", n / 1e6)
                    : fmt::format("{:.0f}", n);
}

void print_gain(const Check& c, bool made_up) {
  const auto bytes = [](int64_t n) { return n ? human_bytes(static_cast<double>(n)) : "-"; };
  const auto ms = [](double x) { return std::isnan(x) ? "-" : fmt::format("{:.3f} ms", x); };
  fmt::print("\n{:<8} {:>12} {:>12}\n", "", "float", "int8");
  fmt::print("{:<8} {:>12} {:>12}\n", "weights", bytes(c.float_weight_bytes),
             bytes(c.quantized_weight_bytes));
  if (c.float_memory_bytes) {
    fmt::print("{:<8} {:>12} {:>12}   planned for values, one sample\n", "memory",
               bytes(c.float_memory_bytes), bytes(c.int8_memory_bytes));
    fmt::print("{:<8} {:>12} {:>12}   one sample{}, {}\n", "latency", ms(c.float_ms), ms(c.int8_ms),
               made_up ? " of random numbers" : "", threads_text());
  }
  if (!std::isnan(c.multiply_adds))
    fmt::print("{} multiply-adds a sample\n", count_text(c.multiply_adds));
  if (!c.not_run.empty()) fmt::print("not run: {}\n", c.not_run);
}

void print(const Options& o, const Check& c, const Sampled& sampled) {
  if (c.kinds.empty()) return;
  const DType codes = o.choice.static_qconfig().activation.options().dtype;
  const std::string widths = is_16_bit(codes) ? "16 bits" : "8 bits";
  if (c.decided)
    fmt::print("{}: {} of {} operators in {}\n", o.model, c.quantized(), c.nodes(), widths);
  else
    fmt::print("{}: {} operators\n", o.model, c.nodes());
  print_kinds(c, widths);
  print_gain(c, sampled.made_up);
  if (sampled.quality) fmt::print("calibration: {}\n", calibration_text(*sampled.quality));
  for (const std::string& warning : c.warnings) fmt::print("warning: {}\n", warning);
  if (c.ok())
    fmt::print("ready: octet quantize {} --calibrate {} -o OUT\n", o.model,
               o.calibrate.empty() ? "DATA" : o.calibrate);
}

// -- the command ----------------------------------------------------------------------------------

// What quantizing this graph, on this data, would meet.
Sampled check_graph(const Options& o, const graph::Graph& graph, Check& found) {
  found = debug::check(
      graph, {.mapping = o.choice.static_mapping(), .prepare = o.choice.prepare_options()});
  if (o.choice.strict && found.prepared)
    found.collect([&] { require_all_quantized(*found.prepared); });
  std::optional<Dataset> dataset;
  if (!o.calibrate.empty())
    found.collect([&] {
      dataset = o.sampling.open(o.calibrate, graph);
      check_labels(*dataset, graph, o.sampling.count(*dataset));
    });
  std::vector<Tensor> sample;
  if (dataset) {
    read_samples(found, *dataset, o.sampling.count(*dataset));
    try {
      sample = ordered_inputs(graph, dataset->get(0, batch_size(*dataset, 1)));
    } catch (const Error&) {  // among the problems already
    }
  } else if (const auto open = open_inputs(graph); open.empty()) {
    sample = random_inputs(graph, 1);
  } else {
    found.not_run = fmt::format("sizes are open in {}; give them with --shape, or --calibrate DATA",
                                fmt::join(open, ", "));
  }
  if (!sample.empty()) debug::check_run(found, graph, sample, !dataset);
  Sampled sampled{.made_up = !dataset};
  // Last of all: what is prepared is calibrated then.
  if (dataset && found.prepared && found.ok())
    found.collect([&] {
      sampled.quality =
          calibrate(*found.prepared, *dataset, o.calibrate, o.sampling.count(*dataset)).value();
      found.warnings.insert(found.warnings.end(), sampled.quality->warnings.begin(),
                            sampled.quality->warnings.end());
    });
  return sampled;
}

void run(Options o) {
  o.run.apply();
  o.choice.read_config();
  Check found;
  Sampled sampled;
  std::optional<graph::Graph> graph;
  Operators operators;
  std::string cure;
  found.collect([&] {
    try {
      graph = load_model(o.model, o.shape.shapes());
    } catch (const io::OnnxUnsupported& e) {
      operators = e.operators();
      cure = e.cure();
      throw;
    }
  });
  if (graph) sampled = check_graph(o, *graph, found);
  if (o.json)
    print_json(to_json(o, found, operators, sampled));
  else if (!operators.empty())
    print_refused(o, operators, cure);
  else
    print(o, found, sampled);
  found.require_ok();
}

void add_check(CommandLine& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command(
      "check", "whether a network can be quantized: what will be 8 bits, what is wrong with it");
  command.add_option("MODEL", o->model, "the trained network: .onnx or .octet")
      .type_name("")
      .required();
  command.add_option("--calibrate", o->calibrate, "the data that it is to be calibrated on")
      .type_name("DATA");
  command.add_flag("--json", o->json, "print one JSON object");
  o->choice.add_to(command);
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer(
      "Nothing is written. All that would keep `octet quantize` from working is in one error;\n"
      "exit status 1 then. Sizes, memory and time are of a trial on one sample.\n"
      "Example: octet check net.onnx --calibrate images.npz");
  command.callback([o] { run(*o); });
}

const RegisteredCommand g_check("check", add_check);

}  // namespace
}  // namespace octet::cli
