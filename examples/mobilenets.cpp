// Two small networks for pictures of 32 x 32, with new weights, for `octet train --from-scratch`:
// mobilenet_v1.octet and mobilenet_v2.octet, written to DIR.
//   example_mobilenets [DIR]
#include <octet/octet.h>

#include <filesystem>
#include <iostream>

#include "examples/models/mobilenet_v1.h"
#include "examples/models/mobilenet_v2.h"

using namespace octet;

namespace {

// The graph of `model` for batches of any size, with its batch norms as they are.
void write(const nn::ModulePtr& model, const std::filesystem::path& path) {
  model->eval();
  const graph::Graph graph =
      graph::trace(*model, std::vector<Tensor>{Tensor::zeros({1, 3, 32, 32})})->to_graph();
  io::save_octet(graph, path);
  int64_t parameters = 0;
  for (const Tensor& p : model->parameters()) parameters += p.numel();
  std::cout << path.filename().string() << ": " << parameters << " parameters\n";
}

}  // namespace

int main(int argc, char** argv) {
  const std::filesystem::path directory =
      argc > 1 ? std::filesystem::path(argv[1]) : std::filesystem::temp_directory_path();
  manual_seed(0);
  write(nn::make<models::MobileNetV1>(models::MobileNetV1Options{
            .num_classes = 10,
            .first_channels = 16,
            .first_stride = 1,
            .blocks = {{32, 1}, {64, 2}, {64, 1}, {128, 2}, {128, 1}, {256, 2}, {256, 1}}}),
        directory / "mobilenet_v1.octet");
  write(nn::make<models::MobileNetV2>(models::MobileNetV2Options{
            .num_classes = 10,
            .first_channels = 16,
            .first_stride = 1,
            .last_channels = 256,
            .stages = {{1, 16, 1, 1}, {4, 24, 2, 2}, {4, 32, 2, 2}, {4, 64, 2, 2}, {4, 96, 1, 1}},
            .dropout = 0}),
        directory / "mobilenet_v2.octet");
}
