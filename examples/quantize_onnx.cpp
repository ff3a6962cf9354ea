// The README's example: a trained ONNX network in, an 8-bit network out, and how well it still
// works.
#include <cstdio>

#include "octet/octet.h"

using namespace octet;

int main() {
  graph::Graph network = io::import_onnx("examples/glyphs/glyphs.onnx");
  auto samples = read_npz("examples/glyphs/calibrate.npz");
  Tensor images = samples["images"].to(DType::float32);

  // Observers watch the float network on sample data and choose scales and zero points.
  auto prepared = quant::prepare_fx(network, quant::get_default_qconfig("native"));
  for (int64_t i = 0; i < images.size(0); i += 64) prepared->forward({images.slice(0, i, i + 64)});

  quant::ConversionReport report;
  graph::Graph int8 = quant::convert_fx(prepared, &report)->graph();
  io::save_octet(int8, "build/glyphs.octet");

  Tensor x = images.slice(0, 0, 1);
  Tensor expected = runtime::compile(network).run({x})[0];
  Tensor got = runtime::compile(io::load_octet("build/glyphs.octet")).run({x})[0];
  std::printf("%lld of %zu operators in 8 bits\nfloat %s\nint8  %s\n",
              static_cast<long long>(report.quantized()), report.entries.size(),
              to_string(expected.slice(1, 0, 4)).c_str(), to_string(got.slice(1, 0, 4)).c_str());
}
