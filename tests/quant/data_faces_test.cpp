// The face detector (Ultra-Light-Fast-Generic-Face-Detector, 320 x 240) on photographs: what int8
// finds of the faces that float finds, and what it invents.
//
// The network gives for each of 4420 priors the probability of a face (scores, column 1) and a box
// (corners, as parts of the picture). A detection is a score above 0.7 that no better detection
// overlaps (non-maximum suppression at IoU 0.3, as the model's authors do). A float detection is
// found if an int8 one has IoU > 0.5 with it. An int8 detection is invented if float has no box of
// IoU > 0.5 with it and a score above 0.5: a face that float gives 0.69 and int8 0.71 was not made
// up.
#include <iostream>
#include <nlohmann/json.hpp>

#include "octet/base/parallel.h"
#include "octet/debug/detections.h"
#include "octet/graph/passes/fuse.h"
#include "octet/io/dataset.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/import.h"
#include "octet/runtime/program.h"
#include "tests/data.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

std::vector<debug::Detections> faces_above(const std::vector<Tensor>& outputs, float score) {
  return debug::detections(outputs[0], outputs[1],
                           {.min_score = score, .max_overlap = 0.3F, .background = true});
}

RunResult quantize(const std::string& out) {
  return run_octet({"quantize", data_dir() / "models/face-rfb-320.onnx", "--calibrate",
                    data_dir() / "images", "--mean", "127", "--std", "128", "-o", out, "--json"});
}

TEST(DataFaces, Int8FindsTheFacesAndInventsNone) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_DATA("models/face-rfb-320.onnx");
  OCTET_NEED_DATA("images");
  TempDir dir;
  RunResult quantized = quantize(dir / "face.octet");
  ASSERT_EQ(quantized.code, 0) << quantized.err;

  set_num_threads(1);  // quick also where cores are shared
  graph::Graph source = io::import_onnx(data_dir() / "models/face-rfb-320.onnx");
  runtime::Program before = runtime::compile(graph::fuse_activations(source));
  runtime::Program after = runtime::compile(io::load_octet(dir / "face.octet"));
  graph::ValueId input = source.inputs().at(0);
  Dataset pictures = Dataset::open(
      data_dir() / "images", {{source.value(input).name, source.type(input)}}, {1, {127}, {128}});
  int64_t faces = 0, found = 0, kept = 0, detected = 0, invented = 0;
  for (int64_t i = 0; i < pictures.size(); ++i) {
    std::vector<Tensor> x{pictures.get(i, 1).inputs.begin()->second};
    auto p = before.run(x), q = after.run(x);
    const auto truth = faces_above(p, 0.7F), likely = faces_above(p, 0.5F),
               mine = faces_above(q, 0.7F);
    const debug::Share again = debug::found_again(truth, mine);
    faces += again.count;
    found += again.hits;
    kept += debug::found_again(truth, faces_above(q, 0.6F)).hits;
    detected += std::ssize(mine[0]);
    invented += std::ssize(mine[0]) - debug::found_again(mine, likely).hits;
  }
  std::string what = "float finds " + std::to_string(faces) + ", int8 " + std::to_string(detected) +
                     ": " + std::to_string(found) + " of the same, " + std::to_string(invented) +
                     " invented";
  RecordProperty("faces", what);
  std::cout << what << "\n";
  EXPECT_GT(faces, 50) << what;
  EXPECT_GE(100 * found, 98 * faces) << what;
  EXPECT_EQ(kept, faces) << "all are there, with a score of 0.6 or more";
  EXPECT_LE(20 * invented, detected) << what;
}

TEST(DataFaces, InspectSaysWhatIsIn8BitsAndWhyTheRestIsNot) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_DATA("models/face-rfb-320.onnx");
  OCTET_NEED_DATA("images");
  TempDir dir;
  auto report = nlohmann::json::parse(quantize(dir / "face.octet").out);
  auto json = nlohmann::json::parse(run_octet({"inspect", dir / "face.octet", "--json"}).out);
  EXPECT_EQ(json["quantized_operators"], report["quantized_nodes"]);
  for (const auto& node : json["nodes"]) {
    std::string op = node["op"];
    if (op == "conv2d") {
      EXPECT_TRUE(node["quantized"]) << node;
    }
    if (op == "quantize" || op == "dequantize" || node["quantized"]) continue;
    EXPECT_TRUE(node.value("stays_float", false)) << node;
    EXPECT_NE(node.value("note", ""), "") << node;
  }
  std::string text = run_octet({"inspect", dir / "face.octet"}).out;
  EXPECT_NE(text.find("# nothing that reads its result takes codes"), std::string::npos);
  EXPECT_NE(text.find("in 8 bits"), std::string::npos);
}

}  // namespace
}  // namespace octet::testing
