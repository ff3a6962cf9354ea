// octet convert IN OUT
#include <fmt/format.h>

#include <memory>

#include "common.h"

namespace octet::cli {

void add_convert(CLI::App& app) {
  struct Options {
    std::string in, out;
  };
  auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand("convert", "between .onnx and .octet");
  cmd->add_option("IN", o->in, ".onnx or .octet")->required();
  cmd->add_option("OUT", o->out, ".octet, or .onnx (quantized parts as QuantizeLinear/DequantizeLinear)")->required();
  cmd->callback([o] {
    check_model_path(o->out);
    save_model(load_model(o->in), o->out);
  });
}

}  // namespace octet::cli
