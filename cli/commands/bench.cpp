// octet bench MODEL
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <memory>

#include "cli/common.h"
#include "octet/base/cpu.h"
#include "octet/base/error.h"

namespace octet::cli {

namespace {

struct Options {
  std::string model, versus;
  int64_t batch = 1;
  double seconds = 2;
  bool json = false, profile = false;
  ShapeOptions shape;
  RunOptions run;
};

// The models that are measured, MODEL first, and what starting them took.
struct Models {
  std::vector<std::string> names;
  std::vector<runtime::Program> programs;
  std::vector<std::vector<Tensor>> inputs;
  std::vector<double> load_ms;
  std::vector<double> first_ms;  // from nothing to the first result, without making the inputs
};

Models start_models(const Options& o) {
  Models m;
  m.names.push_back(o.model);
  if (!o.versus.empty()) m.names.push_back(o.versus);
  for (const std::string& name : m.names) {
    auto start = std::chrono::steady_clock::now();
    auto since = [&] {
      return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
          .count();
    };
    m.programs.push_back(runtime::compile(load_model(name, o.shape.shapes())));
    m.load_ms.push_back(since());
    m.inputs.push_back(random_inputs(m.programs.back().graph(), o.batch));
    start = std::chrono::steady_clock::now();
    m.programs.back().run(m.inputs.back());
    m.first_ms.push_back(m.load_ms.back() + since());
  }
  return m;
}

JsonValue to_json(const Models& m, const std::vector<Latency>& times) {
  auto object = [&](size_t i) {
    return JsonValue::object({{"median_ms", times[i].median_ms},
                              {"min_ms", times[i].min_ms},
                              {"load_ms", m.load_ms[i]},
                              {"first_ms", m.first_ms[i]},
                              {"peak_rss_mb", peak_rss_mb()}});
  };
  JsonValue json = object(0);
  if (times.size() > 1) {
    json.set("vs", object(1));
    json.set("speedup", times[1].median_ms / times[0].median_ms);
  }
  return json;
}

// Samples per run of the first model: what its first input has along dimension 0.
int64_t batch_of(const Models& m) {
  const std::vector<Tensor>& x = m.inputs.front();
  return x.empty() || x[0].dim() == 0 ? 1 : x[0].size(0);
}

void print(const Models& m, const std::vector<Latency>& times) {
  fmt::print("{}; {}, batch {}\n", cpu_description(), threads_text(), batch_of(m));
  const auto& names = m.names;
  size_t width = std::max(names.front().size(), names.back().size());
  for (size_t i = 0; i < names.size(); ++i)
    fmt::print("{:<{}}  median {:.3f} ms  min {:.3f} ms  load {:.1f} ms  first result {:.1f} ms\n",
               names[i], width, times[i].median_ms, times[i].min_ms, m.load_ms[i], m.first_ms[i]);
  if (times.size() > 1)
    fmt::print("{} is {:.2f}x as fast as {}\n", names[0], times[1].median_ms / times[0].median_ms,
               names[1]);
  fmt::print("peak memory {:.1f} MB\n", peak_rss_mb());
}

// The time of every step; with `notes`, why the chosen engine does not run it.
void print_steps(const runtime::Program& program, const std::vector<Tensor>& inputs, bool notes) {
  auto seconds = program.profile(inputs);
  const auto& g = program.graph();
  for (size_t i = 0; i < seconds.size(); ++i) {
    const auto& step = program.steps()[i];
    // By rows together with the step before: the time is in the first's line.
    const std::string time = step.with_previous ? fmt::format("{:>9}   ", "\"")
                                                : fmt::format("{:9.1f} us", seconds[i] * 1e6);
    fmt::print("{}  {:<10} {:<40} %{}{}\n", time, step.engine, step.kernel,
               g.value(g.node(step.node).outputs[0]).name,
               notes && !step.note.empty() ? "  # " + step.note : "");
  }
}

void run(const Options& o) {
  o.run.apply();
  const Models m = start_models(o);
  std::vector<const runtime::Program*> pointers;
  for (const auto& p : m.programs) pointers.push_back(&p);
  for (const auto& p : m.programs) print_warnings(p);
  const std::vector<Latency> times = measure(pointers, m.inputs, o.seconds);
  if (o.json) {
    print_json(to_json(m, times));
    return;
  }
  print(m, times);
  // Notes of the default engine are no news.
  if (o.profile) print_steps(m.programs[0], m.inputs[0], !o.run.engine.empty());
}

// A number above 0, up to a day.
Check seconds_to_measure() {
  return accepted_by([](const std::string& text) {
    double x = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
    if (error != std::errc() || end != text.data() + text.size() || !(x > 0 && x <= 86400))
      fail(ErrorCode::invalid_argument,
           fmt::format("expected a number above 0, up to 86400, got '{}'", text));
  });
}

void add_bench(CommandLine& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("bench", "latency, load time and memory");
  command.add_option("MODEL", o->model, ".onnx or .octet").type_name("").required();
  command.add_option("--vs", o->versus, "a second model, measured in alternation with the first")
      .type_name("MODEL");
  command
      .add_option("--batch", o->batch, "samples per run, where the model leaves it open; default 1")
      .type_name("N")
      .check(whole_number(1, INT32_MAX));
  command.add_option("--seconds", o->seconds, "how long to measure each model; default 2")
      .type_name("X")
      .check(seconds_to_measure());
  command.add_flag("--json", o->json, "print one JSON object");
  command.add_flag("--profile", o->profile, "also print the time of every step of MODEL");
  command.footer(
      "Inputs are random: what a model leaves open besides the batch needs --shape.\n"
      "Example: octet bench net.octet --vs net.onnx --threads 1");
  o->shape.add_to(command);
  o->run.add_to(command);
  command.callback([o] { run(*o); });
}

const RegisteredCommand g_bench("bench", add_bench);

}  // namespace

}  // namespace octet::cli
