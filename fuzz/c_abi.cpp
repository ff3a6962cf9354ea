// The C interface: a model's bytes, then calls with arrays of every kind of shape, type and size.
#include <cstring>

#include "fuzz/fuzz.h"
#include "octet/c/octet.h"
#include "octet/io/octet_file.h"
#include "octet/quant/workflow/fx.h"
#include "tests/graph/random_net.h"

namespace octet::fuzz {
namespace {

constexpr size_t kMostBytes = 1 << 16;        // of an array of the caller's
constexpr size_t kFreeRun = size_t{1} << 28;  // what a model may compute from such inputs

void checked(octet_status status) {
  if (status == OCTET_OK) return;
  const std::string text = octet_error_text();
  if (status == OCTET_INTERNAL) finding("internal: " + text);
  if (text.empty()) finding("a status without a text");
  if (text.find('\n') != text.npos) finding("an error of several lines: " + text);
}

struct Array {
  std::vector<int64_t> dims;
  std::vector<uint8_t> data;
  octet_array c;
};

// Mostly what the model wants, sometimes anything.
void fill(Array& a, const octet_value_info& info, Choices& choose) {
  a.dims.assign(info.dims, info.dims + info.rank);
  for (int64_t& d : a.dims)
    if (d < 0 || choose.integer(0, 15) == 1) d = choose.integer(0, 9) - 1;
  if (choose.integer(0, 15) == 1) a.dims.push_back(choose.integer(-1, 3));
  int dtype = info.dtype;  // C programs may give any
  if (choose.integer(0, 15) == 1) dtype = static_cast<int>(choose.integer(-1, 17));
  size_t elements = 1;
  for (const int64_t d : a.dims)
    elements = std::min(kMostBytes / 8, elements * static_cast<size_t>(std::max<int64_t>(d, 0)));
  const size_t width = dtype == OCTET_FLOAT64 || dtype == OCTET_INT64                            ? 8
                       : dtype == OCTET_FLOAT32 || dtype == OCTET_INT32 || dtype == OCTET_QINT32 ? 4
                       : dtype == OCTET_UINT8 || dtype == OCTET_INT8 || dtype == OCTET_BOOL ||
                               dtype == OCTET_QUINT8 || dtype == OCTET_QINT8
                           ? 1
                           : 2;
  a.data.assign(elements * width, static_cast<uint8_t>(choose.byte()));
  if (choose.integer(0, 15) == 1) a.data.resize(a.data.size() / 2);
  a.c = {OCTET_FLOAT32, a.dims.size(), a.dims.data(), a.data.data(), a.data.size()};
  std::memcpy(&a.c.dtype, &dtype, sizeof dtype);
}

void run_c(const uint8_t* data, size_t size) {
  // The calls come first, so that the bytes of the model may have any length.
  constexpr size_t kCalls = 64;
  if (size < kCalls) return;
  Choices choose(data, kCalls);
  octet_model* model = nullptr;
  const char* const engines[] = {nullptr, "native", "reference", "none", "onednn"};
  const auto path = input_file(data + kCalls, size - kCalls, "in.octet");
  const octet_status status = octet_load(path.c_str(), engines[choose.integer(0, 4)],
                                         choose.byte() == 255 ? nullptr : &model);
  checked(status);
  if (status != OCTET_OK) return;
  octet_value_info info;
  checked(octet_input_info(model, static_cast<size_t>(choose.byte()), &info));
  checked(octet_output_info(model, static_cast<size_t>(choose.byte()), &info));
  const size_t ins = octet_input_count(model), outs = octet_output_count(model);
  if (ins > 8 || outs > 8) return octet_free(model);
  for (int round = 0; round < 3; ++round) {
    std::vector<Array> inputs(ins), outputs(outs);
    std::vector<octet_array> in, out;
    for (size_t i = 0; i < ins; ++i) {
      checked(octet_input_info(model, i, &info));
      fill(inputs[i], info, choose);
      in.push_back(inputs[i].c);
    }
    for (size_t i = 0; i < outs; ++i) {
      checked(octet_output_info(model, i, &info));
      fill(outputs[i], info, choose);
      out.push_back(outputs[i].c);
    }
    const size_t given = choose.integer(0, 15) == 1 ? ins / 2 : ins;
    std::vector<int64_t> dims(8 * std::max<size_t>(outs, 1));
    std::vector<size_t> ranks(std::max<size_t>(outs, 1));
    const octet_status said = octet_output_dims(
        model, in.data(), given, reinterpret_cast<int64_t(*)[8]>(dims.data()), ranks.data(), outs);
    checked(said);
    checked(octet_run(model, in.data(), given, out.data(), outs));
  }
  octet_free(model);
}

Seeds seeds_c() {
  Seeds seeds;
  for (uint64_t seed : {1, 4}) {
    static graph::Graph g;
    g = testing::random_net(seed, true, 4);
    const auto save = [](const std::filesystem::path& p) { io::save_octet(g, p); };
    seeds.push_back(std::string(64, '\0') + bytes_of("seed.octet", save));
    auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
    prepared->forward({Tensor::randn({2, 3, 6, 6}, 1)});
    g = quant::convert_fx(prepared)->graph();
    seeds.push_back(std::string(64, '\2') + bytes_of("seed.octet", save));
  }
  return seeds;
}
const RegisteredTarget g_c({"c_abi", run_c, seeds_c, kFreeRun});

// -- plug-ins -------------------------------------------------------------------------------------

// The loader of the system reads shared libraries, and trusts them. What octet answers for is that
// a file that is none is an error: so the bytes begin as no library does.
void run_plugin(const uint8_t* data, size_t size) {
  if (size >= 4 && std::memcmp(data, "\177ELF", 4) == 0) return;
  const auto path = input_file(data, size, "in.so");
  checked(octet_load_plugin(path.c_str()));
  if (octet_load_plugin(path.c_str()) == OCTET_OK) finding("a plug-in was loaded of no library");
}
Seeds seeds_plugin() { return {"", "not a library", "/* GNU ld script */ INPUT(libc.so.6)"}; }
const RegisteredTarget g_plugin({"plugin", run_plugin, seeds_plugin});

}  // namespace
}  // namespace octet::fuzz
