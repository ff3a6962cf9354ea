// octet convert IN OUT
#include <fmt/format.h>

#include <memory>

#include "cli/common.h"
#include "octet/base/text.h"
#include "octet/io/module_file.h"
#include "octet/io/state_dict.h"

namespace octet::cli {

namespace {

struct ConvertOptions {
  std::string in, out, key, target;
  bool force = false;
  ShapeOptions shape;
};

void convert_weights(const ConvertOptions& o) {
  const std::filesystem::path in = o.in;
  std::error_code none;
  if (in.extension() == ".onnx" || (in.extension() == ".octet" && !io::is_model_file(in)))
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: is a network, and {} would hold weights alone; write .onnx or .octet",
                     o.in, o.out));
  if (!o.shape.texts.empty()) wrong_usage("--shape is for networks: " + o.out + " holds weights");
  if (!o.target.empty()) wrong_usage("--target is for networks: " + o.out + " holds weights");
  const auto state = load_weights(in, o.key);
  save_state_dict(o.out, state);
  fmt::print("{}: {} tensors ({})\n", o.out, state.size(),
             human_bytes(static_cast<double>(file_bytes(o.out))));
}

void convert_network(const ConvertOptions& o) {
  if (is_weights_name(o.in))
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: is no network; if it holds weights alone, write them as .safetensors "
                     "(and load them into a model in C++)",
                     o.in));
  if (!o.key.empty()) wrong_usage("--key is for weights: " + o.in + " is a network");
  graph::Graph graph = load_model(o.in, o.shape.shapes());
  if (!o.target.empty() && std::filesystem::path(o.out).extension() != ".onnx")
    wrong_usage("--target is for .onnx files");
  save_model(graph, o.out,
             {.target = io::parse_onnx_target(o.target.empty() ? "onnxruntime" : o.target)});
  NodeCount n = count_nodes(graph);
  fmt::print("{}: {} of {} operators in {} ({})\n", o.out, n.quantized, n.total,
             code_widths(graph, CodesOf::values),
             human_bytes(static_cast<double>(file_bytes(o.out))));
}

void add_convert(CommandLine& program) {
  auto o = std::make_shared<ConvertOptions>();
  Command command = program.add_command(
      "convert", "between .onnx and .octet; PyTorch's weights and shards into .safetensors");
  command.add_option("IN", o->in, weights_help()).type_name("").required();
  command
      .add_option("OUT", o->out,
                  ".octet, or .onnx (8-bit parts as QuantizeLinear and\nDequantizeLinear); of "
                  "weights .safetensors")
      .type_name("")
      .required()
      .check([](const std::string& text) {
        if (std::filesystem::path(text).extension() == ".safetensors") return std::string();
        const std::string wrong = output_model()(text);
        return wrong.empty() ? wrong : wrong + "; of weights in .safetensors";
      });
  add_key(command, o->key);
  add_target(command, o->target);
  o->shape.add_to(command);
  add_force(command, o->force);
  command.footer(
      "Example: octet convert net.octet net.onnx\n"
      "         octet convert resnet18.pth resnet18.safetensors");
  command.callback([o] {
    check_output(OutputKind::model, o->out, {o->in}, o->force);
    if (std::filesystem::path(o->out).extension() == ".safetensors")
      convert_weights(*o);
    else
      convert_network(*o);
  });
}

const RegisteredCommand g_convert("convert", add_convert);

}  // namespace

}  // namespace octet::cli
