// A sparse convolutional network on MNIST with a tensor type of its own, trained and quantized.
//   example_sparse_mnist [--width 32] [--images 3000] [--epochs 2] [--made-up]
#include <octet/io/module_file.h>

#include <chrono>
#include <cstring>
#include <iostream>

#include "backend.h"
#include "mnist.h"

int main(int argc, char** argv) {
  using namespace sparse;
  namespace quant = octet::quant;
  int64_t width = 32, images = 3000, epochs = 2;
  bool made_up = false;
  for (int i = 1; i < argc; ++i) {
    auto number = [&](const char* name, int64_t& value) {
      if (!std::strcmp(argv[i], name) && i + 1 < argc) value = std::atoll(argv[++i]);
    };
    number("--width", width);
    number("--images", images);
    number("--epochs", epochs);
    made_up = made_up || !std::strcmp(argv[i], "--made-up");
  }
  try {
    if (!made_up && !std::filesystem::exists(mnist_dir())) {
      std::cout << "no " << mnist_dir().string() << " (set OCTET_DATA): made-up images instead\n";
      made_up = true;
    }
    const Digits digits = made_up ? made_up_digits(images, 1)
                                  : load_mnist(mnist_dir() / "train20000.npz").first(images);
    const Digits test =
        made_up ? made_up_digits(500, 2) : load_mnist(mnist_dir() / "test5000.npz").first(2000);

    auto net = nn::make<SparseMnist>(width);
    std::cout << nn::to_string(*net) << "\n";
    const auto start = std::chrono::steady_clock::now();
    train(*net, digits, {.epochs = epochs, .report = [](int64_t epoch, double loss) {
                           std::cout << "epoch " << epoch << ": loss " << loss << std::endl;
                         }});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const double right = accuracy(*net, test);
    std::cout << "accuracy " << right << " after " << seconds.count() << " s of training\n";

    // Observers between the fused layers, which see features only; then 200 images; then the user's
    // own kernels.
    const quant::BackendConfig backend = sparse_backend();
    auto prepared = quant::prepare_fx(net, sparse_qconfig_mapping(octet::DType::qint8),
                                      input_types(), {}, backend);
    for (int64_t i = 0; i < 200; i += 50) prepared->forward(digits.inputs(i, i + 50));
    auto int8 = quant::convert_fx(prepared, {}, backend);
    std::cout << print(int8->graph());

    // Saved and loaded again: the same network.
    const auto file = std::filesystem::temp_directory_path() / "sparse_mnist_int8.octet";
    octet::save_model(file, *int8);
    nn::ModulePtr loaded = octet::load_model(file);
    const double int8_right = accuracy(*loaded, test);
    std::cout << "accuracy in 8 bits " << int8_right << ", file of "
              << std::filesystem::file_size(file) << " bytes\n";
    std::filesystem::remove(file);
    return right > (made_up ? 0.8 : 0.95) && int8_right > right - 0.005 ? 0 : 1;
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
