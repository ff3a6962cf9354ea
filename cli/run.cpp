// octet run MODEL --input NAME=FILE.npy --output OUT.npz
#include <fmt/format.h>

#include <memory>

#include "common.h"
#include "octet/base/error.h"
#include "octet/io/npz.h"

namespace octet::cli {

void add_run(CLI::App& app) {
  struct Options {
    std::string model, output;
    std::vector<std::string> inputs;
    RunOptions run;
  };
  auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand("run", "run a model on arrays");
  cmd->add_option("MODEL", o->model, ".onnx or .octet")->required();
  cmd->add_option("--input", o->inputs, "NAME=FILE.npy, once per input")->required();
  cmd->add_option("--output", o->output, "the results, an .npz")->required();
  o->run.add_to(*cmd);
  cmd->callback([o] {
    o->run.apply();
    graph::Graph graph = load_model(o->model);
    std::map<std::string, Tensor> inputs;
    for (const std::string& item : o->inputs) {
      size_t equals = item.find('=');
      if (equals == std::string::npos || equals == 0)
        fail(ErrorCode::invalid_argument, fmt::format("--input {}: expected NAME=FILE.npy", item));
      std::string name = item.substr(0, equals);
      Tensor value = read_npy(item.substr(equals + 1));
      // uint8 images become float unscaled, as everywhere on the command line.
      if (auto id = graph.find(name); id && graph.type(*id).dtype != value.dtype() && !graph.type(*id).is_quantized())
        value = value.to(graph.type(*id).dtype);
      inputs[name] = value;
    }
    runtime::Program program = runtime::compile(graph);
    std::map<std::string, Tensor> outputs;
    for (auto& [name, value] : program.run(inputs)) {
      outputs[name] = value.is_quantized() ? value.dequantize() : value;
      fmt::print("{}: {}\n", name, to_string(value.type()));
    }
    write_npz(o->output, outputs);
  });
}

}  // namespace octet::cli
