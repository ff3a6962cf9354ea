#pragma once
// Work for an octet, in C++ and in C: the same for the octet of the program and for that of a
// library it loads.
#include <octet/c/octet.h>
#include <octet/octet.h>

#include <memory>
#include <string>

// The sum of what a network quantized by this file's octet gives, and a text of the C face's.
inline double run_network(std::string* error) {
  using namespace octet;
  auto model = std::make_shared<nn::Sequential>(std::make_shared<nn::Linear>(8, 16),
                                                std::make_shared<nn::ReLU>(),
                                                std::make_shared<nn::Linear>(16, 4));
  for (const auto& [name, p] : model->named_parameters()) *p = Tensor::full(p->shape(), 0.25);
  model->eval();
  const Tensor x = Tensor::rand({1, 8}, 1);
  const graph::Graph graph = quant::quantize_dynamic_fx(graph::trace(*model, {x})->to_graph());
  const Tensor y = runtime::compile(graph).run({x})[0];
  octet_model* none = nullptr;
  octet_load("/nowhere.octet", nullptr, &none);
  *error = octet_error_text();
  return y.sum().item();
}
