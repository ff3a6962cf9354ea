// octet explain MODEL
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "cli/common.h"
#include "octet/base/error.h"
#include "octet/debug/explain.h"
#include "octet/debug/saturation.h"
#include "octet/io/module_file.h"

namespace octet::cli {
namespace {

struct Options {
  std::string model, data, require, part, isa;
  int64_t batch = 1;
  bool json = false, details = false, verify = false;
  DataOptions sampling;
  ShapeOptions shape;
  RunOptions run;
};

JsonValue to_json(const debug::ExplainedOperand& o) {
  return JsonValue::object({{"name", o.name},
                            {"type", to_string(o.type)},
                            {"scheme", debug::scheme(o.type)},
                            {"constant", o.constant},
                            {"bytes", o.bytes}});
}

JsonValue to_json(const std::vector<debug::ExplainedOperand>& operands) {
  JsonValue list = JsonValue::array();
  for (const debug::ExplainedOperand& o : operands) list.push_back(to_json(o));
  return list;
}

JsonValue to_json(const debug::ExplainedStep& s) {
  const KernelDescription& d = s.description;
  JsonValue json = JsonValue::object({{"name", s.name},
                                      {"op", s.op},
                                      {"numbers", to_string(s.numbers)},
                                      {"on_codes", s.on_codes()},
                                      {"inputs", to_json(s.inputs)},
                                      {"outputs", to_json(s.outputs)},
                                      {"kernel", s.kernel},
                                      {"loop", d.loop},
                                      {"isa", s.isa},
                                      {"engine", s.engine},
                                      {"arithmetic", to_string(d.arithmetic)},
                                      {"threads", s.threads},
                                      {"openmp", s.openmp}});
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) json.set(key, value);
  };
  text("why_float", s.why_float);
  text("quantized_at_run_time", d.at_run_time);
  text("accumulator", d.accumulator);
  if (s.largest_sum) json.set("largest_sum", *s.largest_sum);
  if (d.wide_channels) json.set("channels_in_64_bits", d.wide_channels);
  if (d.weight_bits) json.set("weight_bits", d.weight_bits);
  text("epilogue", d.epilogue);
  text("rounding", d.rounding);
  text("note", s.note);
  json.set("fused", s.fused);
  json.set("multiply_adds", s.multiply_adds);
  json.set("bytes", s.bytes);
  if (s.seconds > 0) {
    json.set("seconds", s.seconds);
    json.set("share", s.share);
    json.set("of_ceiling", s.of_ceiling);
    json.set("bound_by", s.bound_by_memory ? "memory" : "multiply-adds");
  }
  text("verified", s.verified);
  return json;
}

JsonValue to_json(const debug::Explanation& e) {
  JsonValue steps = JsonValue::array();
  for (const debug::ExplainedStep& s : e.steps) steps.push_back(to_json(s));
  return JsonValue::object({{"machine", e.machine},
                            {"engine", e.engine},
                            {"samples", e.samples},
                            {"seconds", e.seconds},
                            {"ceilings", e.ceilings.description},
                            {"steps", steps},
                            {"summary", e.summary()}});
}

JsonValue to_json(const debug::SaturationReport& r) {
  JsonValue layers = JsonValue::array(), outputs = JsonValue::array();
  for (const debug::SaturationForecast& f : r.layers) {
    JsonValue json = JsonValue::object({{"name", f.name},
                                        {"op", f.op},
                                        {"weight_pairs", f.weight_pairs},
                                        {"risky_pairs", f.risky_pairs},
                                        {"saturates", f.saturates()}});
    if (r.samples) {
      json.set("sums", f.sums);
      json.set("saturated", f.saturated);
      json.set("sqnr_db", f.error.sqnr());
      json.set("most_steps", f.most_steps);
    }
    if (!f.note.empty()) json.set("note", f.note);
    layers.push_back(std::move(json));
  }
  for (const debug::SaturationReport::Output& o : r.outputs)
    outputs.push_back(JsonValue::object({{"name", o.name},
                                         {"sqnr_db", o.error.sqnr()},
                                         {"max_abs_error", o.error.max_abs_error()},
                                         {"rows", o.rows},
                                         {"other_class", o.other_class}}));
  return JsonValue::object(
      {{"samples", r.samples}, {"layers", layers}, {"outputs", outputs}, {"summary", r.summary()}});
}

// The inputs of runs: those of DATA, or random ones.
std::vector<std::vector<Tensor>> samples_of(const Options& o, const graph::Graph& graph) {
  if (o.data.empty()) return {random_inputs(graph, o.batch)};
  const Dataset dataset = o.sampling.open(o.data, graph);
  const int64_t size = batch_size(dataset, o.batch);
  const int64_t count = o.sampling.samples ? o.sampling.count(dataset) : size;
  std::vector<std::vector<Tensor>> samples;
  for (int64_t at = 0; at + size <= count; at += size)
    samples.push_back(ordered_inputs(graph, dataset.get(at, size)));
  if (samples.empty())
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: {} samples; expected at least a batch of {}", o.data, count, size));
  return samples;
}

// The inputs of a model of modules, which does not say what they are: what --shape names, in that
// order, in float32.
graph::Graph named_inputs(const Options& o) {
  if (o.shape.texts.empty())
    fail(ErrorCode::invalid_argument,
         fmt::format("{} holds a model of modules, which does not say how large its inputs are: "
                     "give the size of each, in the order in which the model takes them: --shape "
                     "x=1x3x32x32",
                     o.model));
  const graph::InputShapes shapes = o.shape.shapes();
  graph::Graph inputs;
  std::vector<graph::ValueId> values;
  for (const std::string& text : o.shape.texts) {
    const size_t equals = text.rfind('=');
    const std::string name = equals == std::string::npos ? "" : text.substr(0, equals);
    std::vector<Dim> dims;
    for (const int64_t size : shapes.at(name))
      dims.push_back(size == graph::kOpenSize ? Dim("N") : Dim(size));
    values.push_back(inputs.add_input(name.empty() ? "x" : name, {DType::float32, dims}));
  }
  inputs.name = o.model;
  inputs.set_outputs(values);
  return inputs;
}

// A model that save_model wrote, called as eager mode calls it.
debug::Explanation explain_modules(const Options& o) {
  if (!o.isa.empty()) wrong_usage("--isa is for graphs: " + o.model + " holds a model of modules");
  const graph::Graph inputs = named_inputs(o);
  nn::ModulePtr model;
  std::vector<std::string> notes;
  try {
    model = octet::load_model(o.model, &notes);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::not_found) throw;
    fail(ErrorCode::not_found,
         fmt::format("{}; this program has octet's own classes only: call debug::explain "
                     "(octet/debug/explain.h) in yours, or save a graph there, with "
                     "io::save_octet(trace(model, inputs)->to_graph(), file)",
                     e.what()));
  }
  for (const std::string& note : notes) say("octet: note: " + note);
  model->eval();
  return debug::explain(*model, samples_of(o, inputs), {.verify = o.verify});
}

void run(const Options& o) {
  if (!o.part.empty() && o.require.empty())
    wrong_usage("--part says what --require is for; expected --require int8 too");
  o.run.apply();
  debug::Explanation e;
  std::optional<debug::SaturationReport> saturation;
  const std::filesystem::path path = o.model;
  if (path.extension() == ".octet" && io::is_model_file(path)) {
    e = explain_modules(o);
  } else {
    const graph::Graph graph = load_model(path, o.shape.shapes());
    const runtime::Program program = runtime::compile(graph);
    const auto samples = samples_of(o, graph);
    e = debug::explain(program, samples, {.verify = o.verify});
    if (!o.isa.empty())
      // Random inputs would say little of how often sums saturate.
      saturation = debug::forecast_saturation(
          program, o.data.empty() ? std::vector<std::vector<Tensor>>() : samples);
  }
  if (o.json) {
    JsonValue json = to_json(e);
    if (saturation) json.set("saturation", to_json(*saturation));
    print_json(json);
  } else {
    fmt::print("{}", to_string(e, o.details));
    if (o.data.empty()) fmt::print("Inputs were random; --data DATA takes real ones.\n");
    if (saturation)
      fmt::print(
          "\nOn CPUs whose kernels add pairs of products in 16 bits (AVX2, AVX-512 without "
          "VNNI):\n{}",
          to_string(*saturation));
  }
  std::vector<std::string> failures;
  if (!o.require.empty())
    for (const debug::ExplainedStep* s : e.not_on_codes(o.part))
      failures.push_back(fmt::format("{} ({})", s->name, s->op));
  if (!failures.empty())
    fail(ErrorCode::unsupported,
         fmt::format("--require int8: {} not run on 8-bit codes: {}",
                     failures.size() == 1 ? "this operator was" : "these operators were",
                     fmt::join(failures, ", ")));
  for (const debug::ExplainedStep& s : e.steps)
    if (s.differs)
      fail(ErrorCode::internal, fmt::format("--verify: {} ({}): {}", s.name, s.op, s.verified));
  if (!e.output_differs.empty())
    fail(ErrorCode::internal,
         "--verify: run as a whole the result is another: " + e.output_differs);
}

void add_explain(CommandLine& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command(
      "explain", "what each operator computed with: codes or floats, kernel, sums, time");
  command.add_option("MODEL", o->model, ".onnx or .octet, of graphs or of modules")
      .type_name("")
      .required();
  command.add_option("--data", o->data, "an .npz to run; else inputs are random").type_name("DATA");
  command.add_option("--batch", o->batch, "samples per run; default 1")
      .type_name("N")
      .check(whole_number(1, INT32_MAX));
  command.add_flag("--details", o->details, "also a paragraph for each operator");
  command.add_flag("--verify", o->verify,
                   "recompute each operator on codes with the reference engine");
  command.add_option("--require", o->require, "fail if an operator did not run on 8-bit codes")
      .type_name("int8")
      .check(one_of({"int8"}));
  command.add_option("--part", o->part, "only operators of this name (a glob or re:...) must")
      .type_name("NAME");
  command
      .add_option("--isa", o->isa,
                  "forecast which layers would saturate in 16 bits elsewhere: avx2, saturating")
      .type_name("ISA")
      .check(one_of({"avx2", "saturating"}));
  command.add_flag("--json", o->json, "print one JSON object");
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer(
      "Kernels are described by themselves. --samples says on how many samples of DATA --verify\n"
      "works; one batch by default. Of a model of modules --shape says what its inputs are.\n"
      "Example: octet explain net.octet --data test.npz --verify --require int8");
  command.callback([o] { run(*o); });
}

const RegisteredCommand g_explain("explain", add_explain);

}  // namespace
}  // namespace octet::cli
