// A toy compiler's front end: it reads a saved graph and decides for each operator, from the types
// alone, whether it works on codes. The model is that of the question "Output tensor type is lost
// after serializing and loading back a quantized model": there the compiler turned quantized pools
// into float ones, because a loaded graph said Tensor where it had said QUInt8.
#include <octet/octet.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

using namespace octet;

struct AnnotatedConvModel : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 3, 3, {.bias = false}));
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override {
    x = functional::adaptive_avg_pool2d(conv(quant(x)), 4);  // on codes
    return functional::adaptive_avg_pool2d(dequant(x), 2);   // on floats: the same operator
  }
};

// What the toy compiler emits: nothing but the graph is asked.
std::vector<std::string> compile_for_toy(const graph::Graph& g) {
  std::vector<std::string> program;
  for (const graph::Node& node : g.nodes()) {
    if (node.kind != graph::NodeKind::call) continue;
    const TensorType& result = g.type(node.outputs[0]);
    std::string line = node.op;
    if (result.is_quantized()) {
      const TensorType& operand = g.type(node.inputs[0]);
      if (operand.is_quantized())
        line += ".i8 in(" + std::to_string(operand.quantizer->scale()) + ", " +
                std::to_string(operand.quantizer->zero_point()) + ")";
      line += " out(" + std::to_string(result.quantizer->scale()) + ", " +
              std::to_string(result.quantizer->zero_point()) + ")";
    } else {
      line += ".f32";
    }
    program.push_back(line);
  }
  return program;
}

int main() {
  Tensor inp = Tensor::rand({2, 3, 10, 10}, 1);
  auto model = nn::make<AnnotatedConvModel>();
  model->eval();
  model->qconfig = quant::default_qconfig();
  auto prepared = quant::prepare(model);
  prepared->forward(inp);
  auto int8 = quant::convert(prepared);

  graph::TraceOptions operators;
  operators.into_layers = true;
  graph::Graph before = graph::trace(*int8, {inp.type()}, operators)->graph();
  std::cout << "Before saving:\n" << print(before);

  std::string directory =
      (std::filesystem::temp_directory_path() / "octet-example-XXXXXX").string();
  if (!mkdtemp(directory.data())) return 1;
  std::filesystem::path file = std::filesystem::path(directory) / "trace.octet";
  io::save_octet(before, file);
  graph::Graph after = io::load_octet(file);
  std::cout << "After loading:\n" << print(after) << "\nThe toy compiler's program:\n";
  std::vector<std::string> program = compile_for_toy(after);
  for (const std::string& line : program) std::cout << "  " << line << "\n";
  std::filesystem::remove_all(directory);

  bool types_kept =
      print(after) == print(before) && print(after).find("QUInt8(2, 3, 8, 8)") != std::string::npos;
  bool told_apart = program.size() == 5 && program[2].starts_with("adaptive_avg_pool2d.i8") &&
                    program[4] == "adaptive_avg_pool2d.f32";
  return types_kept && told_apart ? 0 : 1;
}
