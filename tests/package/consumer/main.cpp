// A program outside of octet: makes a small network, quantizes its weights, writes it and runs it.
#include <octet/octet.h>

#include <cstdio>

using namespace octet;

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto model = std::make_shared<nn::Sequential>(std::make_shared<nn::Linear>(8, 16),
                                                std::make_shared<nn::ReLU>(),
                                                std::make_shared<nn::Linear>(16, 4));
  model->eval();
  const Tensor x = Tensor::rand({1, 8}, 1);
  const graph::Graph graph = quant::quantize_dynamic_fx(graph::trace(*model, {x})->to_graph());
  io::save_octet(graph, argv[1]);
  const Tensor y = runtime::compile(io::load_graph(argv[1])).run({x})[0];
  std::printf("octet %s: %s of %s\n", version(), to_string(y.shape()).c_str(),
              to_string(y.dtype()).c_str());
  return y.shape() == Shape{1, 4} ? 0 : 1;
}
