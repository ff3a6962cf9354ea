#pragma once
// The names that the code in header comments uses without declaring them. It is compiled, never
// linked nor run.

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "octet/octet.h"

struct SparseConvTensor {
  octet::Tensor features, indices;
};

namespace octet::snippets {

struct Net : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(1, 8, 3));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(conv(x)); }
};
struct Float : nn::Module {};
struct Observed : nn::Module {};
struct MyObserver : quant::MinMaxObserver {
  using MinMaxObserver::MinMaxObserver;
};

// Models, and what conversion makes of them.
extern std::shared_ptr<Net> model, other;
extern std::shared_ptr<nn::Module> int8;
extern nn::LSTM lstm;
extern graph::Graph graph, float_graph, int8_graph;

// Data.
extern Tensor x, h0, c0, example;
extern Tensor scores, boxes, scores8, boxes8;  // of detectors
extern std::vector<Tensor> data;
extern Dataset dataset;
extern std::vector<std::vector<Tensor>> samples, calibration, held_out;

extern quant::Recipe recipe;

// Training.
extern DataLoader loader;
extern int epochs;
Tensor loss(Tensor result, Tensor labels);
void step(Tensor images, Tensor labels);

// Operands of one operator call.
extern Attrs attrs;
extern Tensor weight, x_q, weight_q;  // the latter quantized
extern std::vector<TensorType> input_types, output_types;
extern std::vector<Shape> input_shapes, output_shapes;
extern std::vector<const void*> inputs;
extern std::vector<void*> outputs;
extern void* scratch;

}  // namespace octet::snippets
