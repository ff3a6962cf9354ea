// octet bench MODEL
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <memory>

#include "common.h"
#include "octet/base/cpu.h"
#include "octet/base/error.h"

namespace octet::cli {

void add_bench(CLI::App& app) {
  struct Options {
    std::string model, versus;
    int64_t batch = 1;
    double seconds = 2;
    bool json = false, profile = false;
    RunOptions run;
  };
  auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand("bench", "latency, load time and memory");
  cmd->add_option("MODEL", o->model, ".onnx or .octet")->type_name("")->required();
  cmd->add_option("--vs", o->versus, "a second model, measured in alternation with the first")
      ->type_name("MODEL");
  cmd->add_option("--batch", o->batch, "samples per run, where the model leaves it open; default 1")
      ->type_name("N")
      ->check(whole_number(1, INT32_MAX));
  cmd->add_option("--seconds", o->seconds, "how long to measure each model; default 2")
      ->type_name("X")
      ->check(accepted_by([](const std::string& text) {
        double x = 0;
        auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
        if (error != std::errc() || end != text.data() + text.size() || !(x > 0 && x <= 86400))
          fail(ErrorCode::invalid_argument,
               fmt::format("expected a number above 0, up to 86400, got '{}'", text));
      }));
  cmd->add_flag("--json", o->json, "print one JSON object");
  cmd->add_flag("--profile", o->profile, "also print the time of every step of MODEL");
  cmd->footer("Inputs are random. Example: octet bench net.octet --vs net.onnx --threads 1");
  o->run.add_to(*cmd);
  cmd->callback([o] {
    o->run.apply();
    std::vector<std::string> names{o->model};
    if (!o->versus.empty()) names.push_back(o->versus);
    std::vector<runtime::Program> programs;
    std::vector<std::vector<Tensor>> inputs;
    // first: from nothing to the first result, without making the inputs
    std::vector<double> load, first;
    for (const std::string& name : names) {
      auto start = std::chrono::steady_clock::now();
      auto since = [&] {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
            .count();
      };
      programs.push_back(runtime::compile(load_model(name)));
      load.push_back(since());
      inputs.push_back(random_inputs(programs.back().graph(), o->batch));
      start = std::chrono::steady_clock::now();
      programs.back().run(inputs.back());
      first.push_back(load.back() + since());
    }
    std::vector<const runtime::Program*> pointers;
    for (const auto& p : programs) pointers.push_back(&p);
    for (const auto& p : programs) print_warnings(p);
    auto times = measure(pointers, inputs, o->seconds);
    if (o->json) {
      auto object = [&](size_t i) {
        return nlohmann::ordered_json{{"median_ms", times[i].median_ms},
                                      {"min_ms", times[i].min_ms},
                                      {"load_ms", load[i]},
                                      {"first_ms", first[i]},
                                      {"peak_rss_mb", peak_rss_mb()}};
      };
      auto json = object(0);
      if (times.size() > 1) {
        json["vs"] = object(1);
        json["speedup"] = times[1].median_ms / times[0].median_ms;
      }
      print_json(json);
      return;
    }
    fmt::print("{}; {}, batch {}\n", cpu_description(), threads_text(), o->batch);
    size_t width = std::max(names.front().size(), names.back().size());
    for (size_t i = 0; i < names.size(); ++i)
      fmt::print(
          "{:<{}}  median {:.3f} ms  min {:.3f} ms  load {:.1f} ms  first result {:.1f} ms\n",
          names[i], width, times[i].median_ms, times[i].min_ms, load[i], first[i]);
    if (times.size() > 1)
      fmt::print("{} is {:.2f}x as fast as {}\n", names[0], times[1].median_ms / times[0].median_ms,
                 names[1]);
    fmt::print("peak memory {:.1f} MB\n", peak_rss_mb());
    if (o->profile) {
      auto seconds = programs[0].profile(inputs[0]);
      const auto& g = programs[0].graph();
      for (size_t i = 0; i < seconds.size(); ++i) {
        const auto& step = programs[0].steps()[i];
        // By rows together with the step before: the time is in the first's line.
        const std::string time = step.with_previous ? fmt::format("{:>9}   ", "\"")
                                                    : fmt::format("{:9.1f} us", seconds[i] * 1e6);
        const bool chosen = !o->run.engine.empty();  // of the default it is no news
        fmt::print("{}  {:<10} {:<40} %{}{}\n", time, step.engine, step.kernel,
                   g.value(g.node(step.node).outputs[0]).name,
                   chosen && !step.note.empty() ? "  # " + step.note : "");
      }
    }
  });
}

}  // namespace octet::cli
