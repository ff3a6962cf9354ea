// The readers of files.
#include <algorithm>

#include "fuzz/fuzz.h"
#include "octet/graph/graph.h"
#include "octet/io/dataset.h"
#include "octet/io/idx.h"
#include "octet/io/image.h"
#include "octet/io/module_file.h"
#include "octet/io/npz.h"
#include "octet/io/octet_file.h"
#include "octet/io/pytorch_file.h"
#include "octet/io/safetensors.h"
#include "octet/io/state_dict.h"
#include "octet/io/zip_impl.h"
#include "octet/nn/nn.h"
#include "octet/quant/workflow/fx.h"
#include "tests/graph/random_net.h"
#include "tests/io/pictures.h"
#include "tests/io/torch_bytes.h"
#include "tests/io/zip_bytes.h"

namespace octet::fuzz {
namespace {

// Whatever the tensor's strides say must lie in its memory.
void read_all(const Tensor& t) { (void)to_string(t.contiguous()); }

// -- .octet ---------------------------------------------------------------------------------------

graph::Graph small_quantized_graph(uint64_t seed) {
  auto prepared =
      quant::prepare_fx(testing::random_net(seed, true, 4), quant::get_default_qconfig());
  prepared->forward({Tensor::randn({2, 3, 6, 6}, 1)});
  return quant::convert_fx(prepared)->graph();
}

// A file's header as one without checksums has it, so that changes of it are read.
std::string without_checksums(const std::string& file) {
  uint64_t length = 0;
  for (int i = 8; i-- > 0;)
    length = length << 8 | static_cast<uint8_t>(file[static_cast<size_t>(i)]);
  std::string header = file.substr(8, length);
  for (const std::string key : {"octet.checksum.tensors", "octet.checksum.header"}) {
    const size_t at = header.find('"' + key + '"');
    if (at == header.npos) continue;
    size_t end = header.find('"', at + key.size() + 3);  // where the value begins
    for (++end; header[end] != '"'; ++end)
      if (header[end] == '\\') ++end;
    ++end;
    const size_t comma = header[end] == ',' ? end + 1 : end;
    const size_t from = header[end] == ',' || header[at - 1] != ',' ? at : at - 1;
    header.erase(from, comma - from);
  }
  while (header.size() % 8) header += ' ';
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> 8 * i & 255);
  return out + header + file.substr(8 + length);
}

void run_octet(const uint8_t* data, size_t size) {
  const graph::Graph g = io::load_octet(input_file(data, size, "in.octet"));
  // What was read is written and read again.
  const std::filesystem::path again = work_directory() / "again.octet";
  io::save_octet(g, again);
  const graph::Graph back = io::load_octet(again);
  if (graph::print(back, {.full = true}) != graph::print(g, {.full = true}))
    finding("save_octet and load_octet changed a graph");
}
Seeds seeds_octet() {
  Seeds seeds;
  for (uint64_t seed : {1, 4, 5}) {
    static graph::Graph g;
    g = testing::random_net(seed, true, 4);
    seeds.push_back(without_checksums(
        bytes_of("seed.octet", [](const std::filesystem::path& p) { io::save_octet(g, p); })));
    g = small_quantized_graph(seed);
    seeds.push_back(
        bytes_of("seed.octet", [](const std::filesystem::path& p) { io::save_octet(g, p); }));
    seeds.push_back(without_checksums(seeds.back()));
  }
  return seeds;
}
const RegisteredTarget g_octet({"octet", run_octet, seeds_octet});

// -- safetensors, state dicts ---------------------------------------------------------------------

void run_safetensors(const uint8_t* data, size_t size) {
  const auto path = input_file(data, size, "in.safetensors");
  for (const auto& [name, tensor] : read_safetensors(path).tensors) read_all(tensor);
  read_safetensors_metadata(path);
  for (const auto& [name, tensor] : load_state_dict(path)) read_all(tensor);
}
Seeds seeds_safetensors() {
  const auto write = [](const std::filesystem::path& p) {
    write_safetensors(p,
                      {{"w", Tensor::randn({2, 3}, 1)},
                       {"n", Tensor::arange(3)},
                       {"h", Tensor::ones({2}).to(DType::float16)},
                       {"e", Tensor::empty({0, 4})}},
                      {{"key", "value"}});
  };
  const auto save = [](const std::filesystem::path& p) {
    save_state_dict(
        p,
        {{"w", quantize_per_channel(Tensor::randn({2, 3}, 1), {0.1, 0.2}, {0, 1}, 0, DType::qint8)},
         {"four", quantize_per_tensor(Tensor::randn({3, 3}, 4), 0.25, -1, DType::qint4x2)},
         {"b", Tensor::ones({2})}});
  };
  const std::string a = bytes_of("seed", write), b = bytes_of("seed", save);
  return {a, b, without_checksums(a), without_checksums(b)};
}
const RegisteredTarget g_safetensors({"safetensors", run_safetensors, seeds_safetensors});

// -- save_model -----------------------------------------------------------------------------------

void run_model(const uint8_t* data, size_t size) {
  const auto path = input_file(data, size, "in.safetensors");
  if (io::is_model_file(path)) io::describe_model(path);
  const nn::ModulePtr model = load_model(path);
  const std::filesystem::path again = work_directory() / "again.safetensors";
  save_model(again, *model);
  load_model(again);
}
Seeds seeds_model() {
  const auto plain = [](const std::filesystem::path& p) {
    save_model(p, *nn::make<nn::Sequential>(nn::make<nn::Conv2d>(1, 2, 3), nn::make<nn::ReLU>(),
                                            nn::make<nn::BatchNorm2d>(2)));
  };
  const auto quantized = [](const std::filesystem::path& p) {
    auto model = nn::make<nn::Sequential>(nn::make<nn::Linear>(4, 3), nn::make<nn::ReLU>());
    model->eval();
    auto prepared =
        quant::prepare_fx(model, quant::get_default_qconfig_mapping(), {Tensor::randn({2, 4}, 1)});
    (*prepared)(Tensor::randn({2, 4}, 1));
    save_model(p, *quant::convert_fx(prepared));
  };
  const std::string a = bytes_of("seed", plain), b = bytes_of("seed", quantized);
  return {a, without_checksums(a), without_checksums(b)};
}
const RegisteredTarget g_model({"model", run_model, seeds_model});

// -- npz, npy -------------------------------------------------------------------------------------

void run_npz(const uint8_t* data, size_t size) {
  const auto path = input_file(data, size, "in.npz");
  for (const NpzEntry& e : list_npz(path)) (void)numel(e.shape);
  for (const auto& [name, tensor] : read_npz(path)) read_all(tensor);
}
Seeds seeds_npz() {
  const auto stored = [](const std::filesystem::path& p) {
    write_npz(p, {{"x", Tensor::arange(3)}, {"yy", Tensor::ones({2, 2})}});
  };
  const auto deflated = [](const std::filesystem::path& p) {
    write_npz(p, {{"x", Tensor::arange(30)}, {"yy", Tensor::ones({20, 20})}}, true);
  };
  testing::Zip zip64;
  zip64.zip64 = true;
  return {bytes_of("seed", stored), bytes_of("seed", deflated), zip64.str(), testing::Zip().str()};
}
const RegisteredTarget g_npz({"npz", run_npz, seeds_npz, zip::kFreeInflated});

void run_npy(const uint8_t* data, size_t size) {
  const auto path = input_file(data, size, "in.npy");
  describe_npy(path);
  read_all(read_npy(path));
}
Seeds seeds_npy() {
  using testing::npy;
  using testing::npy_header_dict;
  return {npy(testing::npy_header_dict("<f4", "(2, 3)", "True"), std::string(24, 'x')),
          npy(testing::npy_header_dict("|u1", "(3,)"), "abc"),
          npy(testing::npy_header_dict("<i8", "()"), std::string(8, '\1'), 2),
          npy(npy_header_dict(">f8", "(1,)"), std::string(8, '\1'), 3)};
}
const RegisteredTarget g_npy({"npy", run_npy, seeds_npy});

// -- data sets ------------------------------------------------------------------------------------

void run_idx(const uint8_t* data, size_t size) {
  const auto path = input_file(data, size, "in-images-idx3-ubyte");
  if (is_idx(path)) read_all(read_idx(path));
  const Dataset set = Dataset::open_images(path);
  set.get(0, 2);
}
Seeds seeds_idx() {
  std::string images("\0\0\x08\3\0\0\0\2\0\0\0\2\0\0\0\2", 16);
  std::string gzip("\x1f\x8b\x08\0\0\0\0\0\0\xff\x01\x10\0\xef\xff",
                   15);  // one stored block of 16 bytes
  return {images + "abcdefgh", std::string("\0\0\x08\1\0\0\0\2ab", 10), gzip + images};
}
const RegisteredTarget g_idx({"idx", run_idx, seeds_idx, zip::kFreeInflated});

// -- .pt ------------------------------------------------------------------------------------------

void run_pytorch(const uint8_t* data, size_t size) {
  const auto path = input_file(data, size, "in.pt");
  for (const auto& [name, tensor] : read_pytorch(path)) read_all(tensor);
}
Seeds seeds_pytorch() {
  using namespace testing;  // NOLINT: the opcodes
  Seeds seeds;
  for (const bool legacy : {false, true}) {
    TorchFile file;
    file.legacy = legacy;
    file.with_crc = false;
    const std::string per_tensor = tuple({global("torch", "per_tensor_affine"), real(0.1), num(3)});
    const std::string floats = file.storage("FloatStorage", std::string(96, '\1'), 24);
    const std::string state =
        ordered({{"w", TorchFile::view(floats, 0, {4, 6}, {6, 1})},
                 {"turned", TorchFile::view(floats, 4, {2, 3}, {1, 2})},
                 {"flag", file.tensor("BoolStorage", "\1", {1})},
                 {"a", file.qtensor("QUInt8Storage", "\1\2\3", {3}, per_tensor)}});
    const std::string object = dict({{"epoch", num(3)}, {"state_dict", state}});
    seeds.push_back(legacy ? file.old(object) : file.zip(object));
  }
  return seeds;
}
const RegisteredTarget g_pytorch({"pytorch", run_pytorch, seeds_pytorch, zip::kFreeInflated});

// -- pictures -------------------------------------------------------------------------------------

constexpr size_t kFreePicture = size_t{4} * 3 << 24;  // image_impl.h: kFreePixels, as floats

void run_image(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const int64_t channels = data[0] % 2 ? 1 : 3;
  const Tensor picture = decode_image(data + 1, size - 1, channels, "picture");
  if (picture.numel() > 1 << 16) return;
  resize_bilinear(picture, 5, 7);
}
Seeds seeds_image() {
  using namespace testing;  // NOLINT: the pictures
  std::vector<uint8_t> pixels = plain(4, 3, {10, 200, 30});
  Seeds pictures{png(4, 3, 3, pixels),
                 png(4, 3, 1, plain(4, 3, {7})),
                 png(2, 2, 4, plain(2, 2, {1, 2, 3, 128})),
                 png_of_rows(4, 2, 16, 0, std::string(18, '\0'), false),
                 bmp(4, 3, pixels),
                 JpegOfBlocks(2, 1, {{0}, {128}}).bytes(),
                 JpegOfBlocks(1, 2, {{0, 128, 128}, {248, 0, 8}}).bytes(),
                 JpegOfBlocks(1, 1, {{0, 128, 64, 8}}).bytes()};
  for (std::string& p : pictures) p.insert(p.begin(), '\0');
  return pictures;
}
const RegisteredTarget g_image({"image", run_image, seeds_image, kFreePicture});

}  // namespace
}  // namespace octet::fuzz
