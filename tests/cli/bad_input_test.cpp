// Files that are missing, damaged or do not fit: one line that says what, where and what to do;
// exit status 1; nothing half-written.
#include <sys/stat.h>

#include <cmath>

#include "octet/graph/graph.h"
#include "octet/io/octet_file.h"
#include "tests/cli/cli_test_util.h"
#include "tests/io/old_file.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

Tensor pictures(int64_t n, int64_t c = 1, int64_t size = 28) {
  return Tensor::rand({n, c, size, size}, 1, 0, 255);
}

std::string npz(const TempDir& dir, const std::map<std::string, Tensor>& arrays) {
  write_npz(dir / "data.npz", arrays);
  return dir / "data.npz";
}

RunResult quantize(const std::string& model, const std::string& data, const std::string& out) {
  return run_octet({"quantize", model, "--calibrate", data, "-o", out});
}

TEST(CliBadInput, MissingModel) {
  OCTET_NEED_PROGRAM();
  for (const std::string name : {"no/such/net.onnx", "no/such/net.octet"}) {
    expect_failure(run_octet({"eval", name, "--data", kTest}), 1,
                   {name, "no such file", "check the path"});
    expect_failure(run_octet({"inspect", name}), 1, {name});
    expect_failure(run_octet({"bench", name}), 1, {name});
    expect_failure(run_octet({"convert", name, "out.octet"}), 1, {name});
    expect_failure(quantize(name, kCalibration, "out.octet"), 1, {name});
  }
}

TEST(CliBadInput, NotAModel) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const std::string extension : {".onnx", ".octet"}) {
    std::string name = "junk" + extension;
    for (const std::string& bytes :
         {std::string(), std::string("hello, world\n"), std::string(5000, '\xff'), slurp(kTest)}) {
      spill(dir / name, bytes);
      expect_failure(run_octet({"inspect", dir / name}), 1, {name, " not a"});
    }
  }
  expect_failure(run_octet({"inspect", kTest}), 1, {kTest, "no weights of PyTorch"});
  expect_failure(run_octet({"inspect", "examples"}), 1,
                 {"examples", "a directory without weights"});
  expect_failure(run_octet({"bench", kTest}), 1, {kTest, ".onnx or .octet"});
}

TEST(CliBadInput, TruncatedModel) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::string whole = slurp(kNet);
  spill(dir / "half.onnx", whole.substr(0, whole.size() / 2));
  expect_failure(run_octet({"inspect", dir / "half.onnx"}), 1, {"half.onnx"});
  ASSERT_EQ(run_octet({"convert", kNet, dir / "net.octet"}).code, 0);
  whole = slurp(dir / "net.octet");
  spill(dir / "half.octet", whole.substr(0, whole.size() / 2));
  expect_failure(run_octet({"inspect", dir / "half.octet"}), 1, {"half.octet"});
}

TEST(CliBadInput, UnsupportedOperatorsAreAllNamed) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  spill(dir / "odd.onnx", OnnxModel()
                              .input("x", {1, 4})
                              .node("Frobnicate", {"x"}, {"a"}, {}, "first")
                              .node("Defenestrate", {"x"}, {"b"}, {}, "second")
                              .output("a")
                              .output("b")
                              .bytes());
  expect_failure(quantize(dir / "odd.onnx", kCalibration, dir / "out.octet"), 1,
                 {"odd.onnx", "Frobnicate", "first", "Defenestrate", "second"});
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(CliBadInput, MissingData) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_failure(run_octet({"eval", kNet, "--data", "no/such.npz"}), 1,
                 {"no/such.npz", "no such file"});
  expect_failure(quantize(kNet, "no/such.npz", dir / "out.octet"), 1,
                 {"no/such.npz", "no such file"});
  expect_failure(quantize(kNet, dir.path(), dir / "out.octet"), 1, {"no pictures", ".png"});
  EXPECT_EQ(count_files(dir.path()), 0u);
}

TEST(CliBadInput, DataOfTheWrongShapeOrDtype) {
  OCTET_NEED_PROGRAM();
  struct Case {
    std::map<std::string, Tensor> arrays;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases{
      {{{"images", pictures(4, 3)}}, {"'images'", "(4, 3, 28, 28)", "Float(N, 1, 28, 28)"}},
      {{{"images", pictures(4, 1, 32)}}, {"(4, 1, 32, 32)", "resize"}},
      {{{"images", Tensor::rand({4, 28, 28, 1}, 1)}}, {"(4, 28, 28, 1)", "transpose"}},
      {{{"images", Tensor::rand({4, 28, 28}, 1)}}, {"(4, 28, 28)", "channel dimension"}},
      {{{"images", pictures(4).to(DType::float64)}}, {"float64", "astype('float32')"}},
      {{{"images", pictures(4).to(DType::int32)}}, {"int32", "astype('float32')"}},
      {{{"pictures", pictures(4)}}, {"no array 'images'", "'pictures'"}},
      {{{"images", pictures(4)}, {"labels", Tensor::zeros({3}, DType::int64)}},
       {"'labels'", "(3)", "(4)"}},
      {{{"images", pictures(4)}, {"labels", Tensor::zeros({4})}}, {"'labels'", "float32", "int64"}},
      {{{"images", Tensor::zeros({0, 1, 28, 28})}}, {"'images'", "no samples"}},
  };
  TempDir dir;
  for (const Case& c : cases) {
    std::string data = npz(dir, c.arrays);
    std::vector<std::string> parts = c.parts;
    parts.push_back("data.npz");
    expect_failure(quantize(kNet, data, dir / "out.octet"), 1, parts);
    expect_failure(run_octet({"eval", kNet, "--data", data}), 1, parts);
  }
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(CliBadInput, DamagedData) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::string whole = slurp(kCalibration);
  spill(dir / "half.npz", whole.substr(0, whole.size() / 2));
  expect_failure(quantize(kNet, dir / "half.npz", dir / "out.octet"), 1, {"half.npz"});
  spill(dir / "junk.npz", "hello, world\n");
  expect_failure(quantize(kNet, dir / "junk.npz", dir / "out.octet"), 1, {"junk.npz"});
  EXPECT_EQ(count_files(dir.path()), 2u);
}

TEST(CliBadInput, NothingToCompareWith) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_failure(run_octet({"eval", kNet, "--data", npz(dir, {{"images", pictures(4)}})}), 1,
                 {"data.npz", "labels"});
}

TEST(CliBadInput, NotFiniteCalibrationData) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (float bad : {NAN, INFINITY}) {
    Tensor x = pictures(40);
    x.data<float>()[35 * 28 * 28 + 5] = bad;
    expect_failure(
        quantize(kNet, npz(dir, {{"images", x}}), dir / "out.octet"), 1,
        {"data.npz", "sample 35", "'images'", "element 5", std::isnan(bad) ? "NaN" : "inf"});
    std::string labelled = npz(dir, {{"images", x}, {"labels", Tensor::zeros({40}, DType::int64)}});
    expect_failure(run_octet({"eval", kNet, "--data", labelled}), 1, {"data.npz", "sample 35"});
    for (const std::string command : {"train", "qat"}) {
      RunResult r =
          run_octet({command, kNet, "--data", labelled, "--epochs", "1", "-o", dir / "out.octet"});
      EXPECT_EQ(r.code, 1);
      EXPECT_TRUE(contains(r.err, "sample 35")) << r.err;
    }
  }
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(CliBadInput, LabelsThatAreNoClasses) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (int64_t bad : {-1, 32, 1000}) {
    Tensor labels = Tensor::zeros({40}, DType::int64);
    labels.data<int64_t>()[17] = bad;
    std::string data = npz(dir, {{"images", pictures(40)}, {"labels", labels}});
    const std::vector<std::string> parts{"data.npz", "sample 17", std::to_string(bad), "0 to 31"};
    expect_failure(run_octet({"eval", kNet, "--data", data}), 1, parts);
    expect_failure(quantize(kNet, data, dir / "out.octet"), 1, parts);
    for (const std::string command : {"train", "qat"})
      expect_failure(
          run_octet({command, kNet, "--data", data, "--epochs", "1", "-o", dir / "out.octet"}), 1,
          parts);
    EXPECT_EQ(run_octet({"eval", kNet, "--data", data, "--samples", "17"}).code, 0)
        << "those before it are used";
  }
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(CliBadInput, QuantizedAlready) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  expect_failure(quantize(dir / "q.octet", kCalibration, dir / "out.octet"), 1,
                 {"q.octet", "quantized already", "float model"});
}

TEST(CliBadInput, NothingToQuantize) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  graph::Graph g;
  auto x = g.add_input("images", {DType::float32, {Dim("N"), 4}});
  g.set_outputs({g.add_call("y", "exp", {x})});
  io::save_octet(g, dir / "exp.octet");
  expect_failure(quantize(dir / "exp.octet", npz(dir, {{"images", Tensor::rand({2, 4}, 1)}}),
                          dir / "out.octet"),
                 1, {"nothing", "exp could run on codes, but its results range too widely"});
}

TEST(CliBadInput, OutputsThatCannotBeWritten) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  write_npy(dir / "x.npy", pictures(1));
  std::filesystem::create_directory(dir / "taken.octet");
  std::filesystem::create_symlink("/dev/full", dir / "full.octet");
  // Known before the first sample is read: the data, which is missing as well, is not what is
  // complained of.
  expect_failure(quantize(kNet, "no/such.npz", dir / "none/q.octet"), 1,
                 {"none/q.octet", "no directory", "make it"});
  expect_failure(run_octet({"convert", kNet, dir / "none/q.octet"}), 1,
                 {"none/q.octet", "no directory"});
  expect_failure(run_octet({"convert", kNet, dir / "none/q.onnx"}), 1,
                 {"none/q.onnx", "no directory"});
  expect_failure(run_octet({"run", kNet, "--input", "images=" + (dir / "x.npy").string(),
                            "--output", dir / "none/y.npz"}),
                 1, {"none/y.npz", "no directory"});
  expect_failure(run_octet({"convert", kNet, dir / "taken.octet"}), 1,
                 {"taken.octet", "directory"});
  expect_failure(run_octet({"convert", kNet, dir / "full.octet", "--force"}), 1,
                 {"full.octet", "No space left", "free some space"});
  EXPECT_EQ(count_files(dir.path()), 3u);
}

TEST(CliBadInput, KilledHalfWayLeavesNothing) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = run_octet({"quantize", kNet, "--calibrate", kCalibration, "--engine", "reference",
                           "-o", dir / "q.octet"},
                          {.kill_after_ms = 150});
  EXPECT_EQ(r.signal, SIGKILL);
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(count_files(dir.path()), 0u);
}

TEST(CliBadInput, RunSaysWhichInputDoesNotFit) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  write_npy(dir / "x.npy", pictures(2, 3));
  auto run = [&](const std::string& input) {
    return run_octet({"run", kNet, "--input", input, "--output", dir / "y.npz"});
  };
  std::string file = dir / "x.npy";
  expect_failure(run("images=" + file), 1, {"images", "(2, 3, 28, 28)"});
  expect_failure(run("imags=" + file), 1, {"imags"});
  expect_failure(run("images=nope.npy"), 1, {"nope.npy", "no such file"});
  expect_failure(run("images=" + kTest), 1, {kTest, ".npy"});
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(CliBadInput, SkipThatMatchesNothing) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  auto skip = [&](const std::string& pattern) {
    return run_octet(
        {"quantize", kNet, "--calibrate", kCalibration, "-o", dir / "q.octet", "--skip", pattern});
  };
  expect_failure(skip("conv99"), 1, {"'conv99'", "matches no node", "inspect"});
  expect_failure(skip("re:("), 1, {"re:(", "regular expression"});
  EXPECT_EQ(count_files(dir.path()), 0u);
}

TEST(CliBadInput, ConfigFile) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  auto with = [&](const std::string& text) {
    spill(dir / "c.json", text);
    return run_octet({"quantize", kNet, "--calibrate", kCalibration, "-o", dir / "q.octet",
                      "--config", dir / "c.json"});
  };
  expect_failure(with("not json"), 1, {"c.json", "not valid JSON"});
  expect_failure(with("[1]"), 1, {"c.json", "JSON object"});
  expect_failure(with(R"({"skip": ["a"], "skip": ["b"]})"), 1, {"c.json", "'skip' occurs twice"});
  expect_failure(with(R"({"obsever": "minmax"})"), 1,
                 {"c.json", "'obsever'", "did you mean 'observer'"});
  expect_failure(with(R"({"strict": "yes"})"), 1, {"c.json", "'strict'"});
  expect_failure(with(R"({"qconfig": "fbgem"})"), 1, {"'fbgem'", "known: native"});
}

// None of these may wait for a writer or read without end.
TEST(CliBadInput, PipesDevicesAndDirectoriesInPlaceOfFiles) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const std::string extension : {"onnx", "octet", "npz", "json", "png"}) {
    ASSERT_EQ(::mkfifo((dir / ("pipe." + extension)).c_str(), 0600), 0);
    std::filesystem::create_symlink("/dev/zero", dir / ("zero." + extension));
    std::filesystem::create_directory(dir / ("sub." + extension));
  }
  auto name = [&](const std::string& kind, const std::string& extension) {
    return (dir / (kind + "." + extension)).string();
  };
  for (const auto& [kind, what] : {std::pair<std::string, std::string>{"pipe", "is a pipe"},
                                   {"zero", "is a device"},
                                   {"sub", "is a directory"}}) {
    for (const std::string extension : {"onnx", "octet"}) {
      const std::string model = name(kind, extension);
      expect_failure(run_octet({"inspect", model}), 1, {model, what});
      expect_failure(quantize(model, kCalibration, dir / "q.octet"), 1, {model, what});
    }
    const std::string config = name(kind, "json");
    expect_failure(run_octet({"quantize", kNet, "--calibrate", kCalibration, "-o", dir / "q.octet",
                              "--config", config}),
                   1, {config, what});
    if (kind == "sub") continue;  // may be a directory of pictures
    expect_failure(quantize(kNet, name(kind, "npz"), dir / "q.octet"), 1,
                   {name(kind, "npz"), what});
    TempDir pictures;
    std::filesystem::create_symlink(name(kind, "png"), pictures / "a.png");
    expect_failure(quantize(kNet, pictures.path(), dir / "q.octet"), 1, {"a.png", what});
  }
}

TEST(CliBadInput, OlderModelsAreReadWithANoteAndDamagedOnesNot) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  const RunResult whole = run_octet({"eval", dir / "q.octet", "--data", kTest, "--json"});
  std::string bytes = slurp(dir / "q.octet");
  spill(dir / "q.octet", without_checksums(bytes));
  RunResult r = run_octet({"eval", dir / "q.octet", "--data", kTest, "--json"});
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(nlohmann::json::parse(r.out)["top1"], json_of(whole)["top1"]);
  EXPECT_EQ(r.err, "octet: note: " + (dir / "q.octet").string() +
                       ": is of an older octet and has no checksums: damage to it would go "
                       "unnoticed; save it again\n");
  bytes[bytes.size() - 1000] ^= 4;
  spill(dir / "q.octet", bytes);
  expect_failure(run_octet({"eval", dir / "q.octet", "--data", kTest}), 1,
                 {"q.octet", "tensor '", "is damaged", "checksum"});
}

TEST(CliBadInput, ModesWithoutCalibrationSayWhatTheyCannotDo) {
  OCTET_NEED_PROGRAM();
  for (const std::string mode : {"dynamic", "weight-only"}) {
    expect_failure(run_octet({"run", kNet, "--output", "y.npz"}), 1,
                   {"no tensor was given for input 'images'"});
    expect_failure(
        run_octet({"quantize", kNet, "-o", "q.octet", "--mode", mode, "--observer", "minmax"}), 2,
        {"--observer", "static"});
    expect_failure(run_octet({"quantize", kNet, "-o", "q.octet", "--mode", mode, "--skip", "hed"}),
                   1, {"'hed'", "matches no node"});
  }
}

}  // namespace
}  // namespace octet::testing
