// octet run MODEL --input NAME=FILE.npy --output OUT.npz
#include <fmt/format.h>

#include <memory>

#include "cli/common.h"
#include "octet/base/error.h"
#include "octet/io/npz.h"

namespace octet::cli {
namespace {

// Whether an array of dtype `from` may stand for an input of dtype `to`: as in DATA, integers
// become wider ones, and everything becomes float.
bool converts(DType from, DType to) {
  if (from == to || is_quantized(to) || to == DType::bool_) return false;
  bool integers = !is_floating(from) && from != DType::bool_;
  return is_floating(to) || (integers && element_size(from) < element_size(to));
}

void add_run(CommandLine& program) {
  struct Options {
    std::string model, output;
    std::vector<std::string> inputs;
    bool force = false;
    ShapeOptions shape;
    RunOptions run;
  };
  auto o = std::make_shared<Options>();
  Command command = program.add_command("run", "run a model on arrays");
  command.add_option("MODEL", o->model, ".onnx or .octet").type_name("").required();
  command.add_option("--input", o->inputs, "an array for the input of that name; once per input")
      .type_name("NAME=FILE.npy")
      .one_value()
      .check(accepted_by([](const std::string& item) {
        if (size_t equals = item.find('='); equals == std::string::npos || equals == 0)
          fail(ErrorCode::invalid_argument, fmt::format("expected NAME=FILE.npy, got '{}'", item));
      }));
  command.add_option("--output", o->output, "where the results go, each under its name")
      .type_name("OUT.npz")
      .required();
  add_force(command, o->force);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer("Example: octet run net.octet --input images=x.npy --output y.npz");
  command.callback([o] {
    o->run.apply();
    std::vector<std::filesystem::path> files{o->model};
    for (const std::string& item : o->inputs) files.push_back(item.substr(item.find('=') + 1));
    check_output(OutputKind::arrays, o->output, files, o->force);
    graph::Graph graph = load_model(o->model, o->shape.shapes());
    std::map<std::string, Tensor> inputs;
    for (const std::string& item : o->inputs) {
      size_t equals = item.find('=');
      std::string name = item.substr(0, equals);
      Tensor value = read_npy(item.substr(equals + 1));
      if (auto id = graph.find(name); id && converts(value.dtype(), graph.type(*id).dtype))
        value = value.to(graph.type(*id).dtype);
      inputs[name] = value;
    }
    const runtime::Program program = runtime::compile(graph);
    print_warnings(program);
    std::map<std::string, Tensor> outputs = program.run(inputs);
    for (const auto& [name, value] : outputs) fmt::print("{}: {}\n", name, to_string(value.type()));
    for (auto& [name, value] : outputs)
      // uint8 or int8, as the model declares it
      if (value.is_quantized()) value = value.int_repr();
    write_npz(o->output, outputs);
  });
}

const RegisteredCommand g_run("run", add_run);

}  // namespace

}  // namespace octet::cli
