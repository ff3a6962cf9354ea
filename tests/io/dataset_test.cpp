#include "octet/io/dataset.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/io/image.h"
#include "octet/io/npz.h"
#include "tests/data.h"
#include "tests/expect_error.h"
#include "tests/io/pictures.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::expect_error;
using testing::plain;
using testing::png;
using testing::spill;
using testing::TempDir;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

InputSpec input(const std::string& name, const std::string& type) {
  return {name, parse_type(type)};
}
const std::vector<InputSpec> kOne = {input("x", "Float(N, 2, 1, 2)")};

// 3 samples of 2 x 1 x 2: 0, 1, 2, ...
Tensor three(DType dtype = DType::uint8) {
  return Tensor::arange(12).to(dtype).reshape({3, 2, 1, 2});
}

TEST(Dataset, ImagesWithLabels) {
  TempDir dir;
  write_npz(dir / "a.npz",
            {{"images", three()}, {"labels", Tensor::from({int64_t{5}, int64_t{6}, int64_t{7}})}});
  Dataset data = Dataset::open(dir / "a.npz", kOne);
  EXPECT_EQ(data.size(), 3);
  EXPECT_TRUE(data.has_labels());
  EXPECT_EQ(data.fixed_batch(), 0);
  EXPECT_NE(data.description().find("3 samples with labels"), std::string::npos);
  Batch batch = data.get(1, 2);
  EXPECT_EQ(batch.begin, 1);
  EXPECT_EQ(batch.size, 2);
  EXPECT_EQ(batch.inputs.size(), 1u);
  EXPECT_EQ(batch.inputs.at("x").type(), TensorType(DType::float32, Shape{2, 2, 1, 2}));
  EXPECT_EQ(batch.inputs.at("x").to_vector<float>(), (Floats{4, 5, 6, 7, 8, 9, 10, 11}))
      << "uint8 is not scaled";
  EXPECT_EQ(batch.labels.to_vector<int64_t>(), (Ints{6, 7}));
}

TEST(Dataset, SamplesMayHaveALabelForEachPlace) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"images", three()}, {"labels", Tensor::arange(6).reshape({3, 2})}});
  Dataset data = Dataset::open(dir / "a.npz", kOne);
  const Tensor labels = data.get(1, 2).labels;
  EXPECT_EQ(labels.shape(), (Shape{2, 2}));
  EXPECT_EQ(labels.to_vector<int64_t>(), (Ints{2, 3, 4, 5}));
  expect_error(ErrorCode::invalid_argument, {"'labels'", "(3, 2)", "(3)", "one class index"},
               [&] { data.check_labels(10, 3); });
}

TEST(Dataset, BatchesOfAnySizeGiveTheSameSamples) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"images", Tensor::randn({10, 2, 1, 2}, 1)}});
  Dataset data = Dataset::open(dir / "a.npz", kOne);
  EXPECT_FALSE(data.has_labels());
  EXPECT_FALSE(data.get(0, 1).labels.defined());
  Floats whole = data.get(0, 10).inputs.at("x").to_vector<float>();
  for (int64_t size : {1, 3, 4, 7}) {
    Floats pieces;
    for (int64_t i = 0; i < 10; i += size) {
      Batch batch = data.get(i, size);
      EXPECT_EQ(batch.size, std::min(size, 10 - i)) << "the last one is what is left";
      for (float v : batch.inputs.at("x").to_vector<float>()) pieces.push_back(v);
    }
    EXPECT_EQ(pieces, whole);
  }
  EXPECT_EQ(data.get(0, 1000).size, 10);
  for (auto [begin, count] : {std::pair<int64_t, int64_t>{10, 1}, {-1, 1}, {0, 0}})
    expect_error(ErrorCode::invalid_argument, {"a.npz"}, [&] { data.get(begin, count); });
}

TEST(Dataset, BatchesAreCopies) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"x", three(DType::float32)}, {"ids", Tensor::arange(3)}});
  Dataset data = Dataset::open(dir / "a.npz", {kOne[0], input("ids", "Long(N)")});
  Batch batch = data.get(0, 3);
  batch.inputs.at("x").data<float>()[0] = 99;
  batch.inputs.at("ids").data<int64_t>()[0] = 99;
  EXPECT_EQ(data.get(0, 1).inputs.at("x").at({0, 0, 0, 0}), 0);
  EXPECT_EQ(data.get(0, 1).inputs.at("ids").at({0}), 0);
}

TEST(Dataset, Preprocess) {
  TempDir dir;
  for (DType dtype : {DType::uint8, DType::float32}) {
    write_npz(dir / "a.npz", {{"images", three(dtype)}});
    auto values = [&](const Preprocess& p) {
      return Dataset::open(dir / "a.npz", kOne, p).get(1, 1).inputs.at("x").to_vector<float>();
    };
    EXPECT_EQ(values({}), (Floats{4, 5, 6, 7}));
    EXPECT_EQ(values({0.5f, {}, {}}), (Floats{2, 2.5f, 3, 3.5f}));
    EXPECT_EQ(values({1, {1}, {2}}), (Floats{1.5f, 2, 2.5f, 3}));
    EXPECT_EQ(values({1, {1, 2}, {2, 4}}), (Floats{1.5f, 2, 1, 1.25f}));
    EXPECT_EQ(values({0.5f, {1, 2}, {}}), (Floats{1, 1.5f, 1, 1.5f})) << "scale comes first";
    // In float32, each step rounded, as numpy does it.
    float s = 1 / 255.0f, m = 0.485f, d = 0.229f;
    EXPECT_EQ(values({s, {m}, {d}})[3], (7 * s - m) / d);
  }
  auto open = [&](const Preprocess& p) { Dataset::open(dir / "a.npz", kOne, p); };
  expect_error(ErrorCode::invalid_argument, {"mean has 3 values", "'x' has 2 channels"}, [&] {
    open({1, {1, 2, 3}, {}});
  });
  expect_error(ErrorCode::invalid_argument, {"std has 3 values"}, [&] {
    open({1, {}, {1, 2, 3}});
  });
  expect_error(ErrorCode::invalid_argument, {"std 0"}, [&] { open({1, {}, {0}}); });
  expect_error(ErrorCode::invalid_argument, {"scale"}, [&] { open({NAN, {}, {}}); });
  expect_error(ErrorCode::invalid_argument, {"mean"}, [&] { open({1, {INFINITY}, {}}); });
}

TEST(Dataset, ArraysByInputName) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"tokens", Tensor::arange(8).reshape({4, 2}).to(DType::int32)},
                            {"mask", Tensor::ones({4, 2}, DType::bool_)},
                            {"weight", Tensor::from({1.0f, 2.0f, 3.0f, 4.0f})},
                            {"labels", Tensor::arange(4)},
                            {"unused", Tensor::ones({9})}});
  Dataset data =
      Dataset::open(dir / "a.npz", {input("tokens", "Long(N, seq)"), input("mask", "Bool(N, seq)"),
                                    input("weight", "Float(N)")});
  EXPECT_EQ(data.size(), 4);
  Batch batch = data.get(2, 2);
  EXPECT_EQ(batch.inputs.at("tokens").to_vector<int64_t>(), (Ints{4, 5, 6, 7}))
      << "int32 widens, and stays integer";
  EXPECT_EQ(batch.inputs.at("mask").dtype(), DType::bool_);
  EXPECT_EQ(batch.inputs.at("weight").to_vector<float>(), (Floats{3, 4}));
  EXPECT_EQ(batch.labels.to_vector<int64_t>(), (Ints{2, 3}));
  EXPECT_EQ(batch.inputs.count("unused"), 0u);
}

TEST(Dataset, ScalarsAndFixedStatesAreGivenWhole) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"audio", Tensor::randn({5, 8}, 1)},
                            {"state", Tensor::full({2, 1, 3}, 7)},
                            {"rate", Tensor::scalar(16000, DType::int64)}});
  Dataset data = Dataset::open(
      dir / "a.npz",
      {input("audio", "Float(N, 8)"), input("state", "Float(2, 1, 3)"), input("rate", "Long()")},
      {2, {}, {}});
  EXPECT_EQ(data.size(), 5);
  Batch batch = data.get(3, 1);
  EXPECT_EQ(batch.inputs.at("audio").shape(), (Shape{1, 8}));
  EXPECT_EQ(batch.inputs.at("state").shape(), (Shape{2, 1, 3}));
  EXPECT_EQ(batch.inputs.at("state").at({0, 0, 0}), 7) << "only samples are preprocessed";
  EXPECT_EQ(batch.inputs.at("rate").item(), 16000);
}

TEST(Dataset, AStateIsWholeThoughItsSizeIsTheNumberOfSamples) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"audio", Tensor::randn({2, 8}, 1)}, {"state", Tensor::ones({2, 3})}});
  Dataset data =
      Dataset::open(dir / "a.npz", {input("state", "Float(2, 3)"), input("audio", "Float(N, 8)")});
  EXPECT_EQ(data.get(0, 1).inputs.at("state").shape(), (Shape{2, 3}));
  EXPECT_EQ(data.get(0, 1).inputs.at("audio").shape(), (Shape{1, 8}));
}

TEST(Dataset, AFixedBatchOfTheModelIsReported) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"images", three()}});
  Dataset data = Dataset::open(dir / "a.npz", {input("x", "Float(1, 2, 1, 2)")});
  EXPECT_EQ(data.size(), 3);
  EXPECT_EQ(data.fixed_batch(), 1);
}

TEST(Dataset, ArraysOfFloat16AreTakenForAnyFloatingInput) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"images", three().to(DType::float16)}});
  for (const char* type : {"Half(N, 2, 1, 2)", "Float(N, 2, 1, 2)"}) {
    Tensor x = Dataset::open(dir / "a.npz", {input("x", type)}).get(0, 3).inputs.at("x");
    EXPECT_EQ(x.dtype(), parse_type(type).dtype);
    EXPECT_EQ(x.to(DType::float32).to_vector<float>(),
              three().to(DType::float32).to_vector<float>());
  }
}

TEST(Dataset, NumbersThatAreNotFiniteAreNamed) {
  TempDir dir;
  for (float bad : {NAN, INFINITY}) {
    Tensor x = Tensor::zeros({3, 2, 1, 2});
    x.data<float>()[2 * 4 + 3] = bad;
    write_npz(dir / "a.npz", {{"x", x}, {"y", Tensor::zeros({3, 2, 1, 2})}});
    Dataset data = Dataset::open(dir / "a.npz", {input("x", "Float(N, 2, 1, 2)")});
    EXPECT_NO_THROW(data.get(0, 2));
    expect_error(ErrorCode::invalid_argument, {"a.npz", "'x'", "sample 2", "element 3"},
                 [&] { data.get(1, 2); });
    Dataset two = Dataset::open(dir / "a.npz",
                                {input("x", "Float(N, 2, 1, 2)"), input("y", "Float(N, 2, 1, 2)")});
    if (std::isnan(bad))
      expect_error(ErrorCode::invalid_argument, {"sample 2"}, [&] { two.get(0, 3); });
    else
      EXPECT_NO_THROW(two.get(0, 3)) << "a mask that is added";
  }
}

TEST(Dataset, LabelsAreCheckedAgainstTheNumberOfClasses) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"images", three()}, {"labels", Tensor::from<int64_t>({0, 9, 3})}});
  Dataset data = Dataset::open(dir / "a.npz", {input("x", "Float(N, 2, 1, 2)")});
  EXPECT_NO_THROW(data.check_labels(10, 3));
  EXPECT_NO_THROW(data.check_labels(4, 1)) << "the first sample only";
  expect_error(ErrorCode::invalid_argument, {"a.npz", "sample 1", "9", "0 to 3"},
               [&] { data.check_labels(4, 3); });
}

TEST(Dataset, InputsOfOtherFloatingDtypes) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"images", three()}});
  EXPECT_EQ(Dataset::open(dir / "a.npz", {input("x", "Half(N, 2, 1, 2)")})
                .get(0, 1)
                .inputs.at("x")
                .dtype(),
            DType::float16);
  EXPECT_EQ(Dataset::open(dir / "a.npz", {input("x", "QUInt8(N, 2, 1, 2) scale=1 zero_point=0")})
                .get(0, 1)
                .inputs.at("x")
                .dtype(),
            DType::float32);
  EXPECT_EQ(Dataset::open(dir / "a.npz", {input("x", "Byte(N, 2, 1, 2)")})
                .get(0, 1)
                .inputs.at("x")
                .dtype(),
            DType::uint8);
}

TEST(Dataset, LabelsMayBeAnInput) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"images", three()}, {"labels", Tensor::ones({3, 2})}});
  Dataset data = Dataset::open(dir / "a.npz", {kOne[0], input("labels", "Float(N, 2)")});
  EXPECT_FALSE(data.has_labels());
  EXPECT_EQ(data.get(0, 3).inputs.at("labels").shape(), (Shape{3, 2}));
}

// Each mistake is one line that says what there is and what the model wants.
TEST(Dataset, MistakesAreNamed) {
  TempDir dir;
  auto check = [&](ErrorCode code, std::vector<std::string> parts,
                   const std::map<std::string, Tensor>& arrays,
                   const std::vector<InputSpec>& inputs = kOne) {
    write_npz(dir / "a.npz", arrays);
    parts.push_back("a.npz");
    expect_error(code, parts, [&] { Dataset::open(dir / "a.npz", inputs); });
  };
  const auto bad = ErrorCode::invalid_argument;
  Tensor images = three();
  check(ErrorCode::not_found,
        {"'images'", "'x'", "'pictures' uint8 (3, 2, 1, 2)", "Float(N, 2, 1, 2)"},
        {{"pictures", images}});
  check(ErrorCode::not_found, {"'b'", "'a' uint8"}, {{"a", images}},
        {input("a", "Float(N, 2, 1, 2)"), input("b", "Float(N)")});
  check(bad, {"'images'", "(3, 2, 1, 2)", "'x'", "Float(N, 3, 1, 2)", "resize"},
        {{"images", images}}, {input("x", "Float(N, 3, 1, 2)")});
  check(bad, {"(3, 1, 2, 2)", "transpose(0, 3, 1, 2)"}, {{"images", images.reshape({3, 1, 2, 2})}},
        {input("x", "Float(N, 2, 1, 2)")});
  check(bad, {"a[None]"}, {{"images", images.select(0, 0)}});
  check(bad, {"a[:, None]"}, {{"images", images.select(1, 0)}}, {input("x", "Float(N, 1, 1, 2)")});
  check(bad, {"float64", "astype('float32')"}, {{"images", images.to(DType::float64)}});
  check(bad, {"int64", "astype('float32')"}, {{"images", images.to(DType::int64)}});
  check(bad, {"'ids'", "float32", "takes int64"}, {{"ids", Tensor::ones({3})}},
        {input("ids", "Long(N)")});
  check(bad, {"'ids'", "int64", "takes int32"}, {{"ids", Tensor::arange(3)}},
        {input("ids", "Int(N)")});
  check(bad, {"'labels'", "(2)", "(3)"}, {{"images", images}, {"labels", Tensor::arange(2)}});
  check(bad, {"'labels'", "(2, 2)", "(3)"},
        {{"images", images}, {"labels", Tensor::arange(4).reshape({2, 2})}});
  check(bad, {"'labels'", "float32", "int64"}, {{"images", images}, {"labels", Tensor::ones({3})}});
  check(bad, {"no samples"}, {{"images", Tensor::zeros({0, 2, 1, 2})}});
  check(bad, {"'b'", "2 samples", "3"}, {{"a", images}, {"b", Tensor::ones({2})}},
        {input("a", "Float(N, 2, 1, 2)"), input("b", "Float(N)")});
  check(bad, {"no inputs"}, {{"images", images}}, {});
}

TEST(Dataset, BadFilesAreNamed) {
  TempDir dir;
  expect_error(ErrorCode::not_found, {"none.npz", "no such file"},
               [&] { Dataset::open(dir / "none.npz", kOne); });
  spill(dir / "a.npz", "not a zip");
  expect_error(ErrorCode::corrupt, {"a.npz", "not an .npz"},
               [&] { Dataset::open(dir / "a.npz", kOne); });
  write_npy(dir / "a.npy", three());
  expect_error(ErrorCode::invalid_argument, {"a.npy", "single array", "np.savez"},
               [&] { Dataset::open(dir / "a.npy", kOne); });
}

// -- directories ----------------------------------------------------------------------------------

const std::vector<InputSpec> kPicture = {input("x", "Float(N, 3, 2, 2)")};

TEST(Dataset, ADirectoryOfPictures) {
  TempDir dir;
  spill(dir / "c.BMP", testing::bmp(2, 2, plain(2, 2, {7, 8, 9})));
  spill(dir / "a.png", png(2, 2, 3, plain(2, 2, {1, 2, 3})));
  spill(dir / "b.png", png(5, 7, 3, plain(5, 7, {4, 5, 6})));
  spill(dir / "notes.txt", "not a picture");
  spill(dir / ".hidden.png", "not shown");
  std::filesystem::create_directory(dir / "d.png");
  Dataset data = Dataset::open(dir.path(), kPicture);
  EXPECT_EQ(data.size(), 3);
  EXPECT_FALSE(data.has_labels());
  Tensor x = data.get(0, 3).inputs.at("x");
  EXPECT_EQ(x.shape(), (Shape{3, 3, 2, 2}));
  for (int64_t n = 0; n < 3; ++n)  // by name: a, b, c
    for (int64_t c = 0; c < 3; ++c)
      EXPECT_EQ(x.at({n, c, 1, 1}), static_cast<double>(3 * n + c + 1));
  EXPECT_EQ(data.get(2, 5).size, 1);
  Tensor y =
      Dataset::open(dir.path(), kPicture, {0.5f, {0, 0, 1}, {1, 1, 2}}).get(0, 1).inputs.at("x");
  EXPECT_EQ(y.at({0, 1, 0, 0}), 1);
  EXPECT_EQ(y.at({0, 2, 0, 0}), 0.25);
}

TEST(Dataset, PicturesAreResizedBilinearly) {
  TempDir dir;
  std::string file =
      png(4, 4, 1, {0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150});
  spill(dir / "a.png", file);
  Tensor x = Dataset::open(dir.path(), {input("x", "Float(N, 1, 2, 2)")}).get(0, 1).inputs.at("x");
  EXPECT_EQ(x.to_vector<float>(), (Floats{25, 45, 105, 125}));
  Tensor rgb =
      Dataset::open(dir.path(), {input("x", "Float(N, C, 2, 2)")}).get(0, 1).inputs.at("x");
  EXPECT_EQ(rgb.shape(), (Shape{1, 3, 2, 2})) << "an open number of channels is RGB";
}

TEST(Dataset, DirectoryMistakesAreNamed) {
  TempDir dir;
  auto open = [&](const std::vector<InputSpec>& inputs) {
    return Dataset::open(dir.path(), inputs);
  };
  const auto bad = ErrorCode::invalid_argument;
  expect_error(bad, {dir.path().string(), "no pictures", ".png"}, [&] { open(kPicture); });
  spill(dir / "a.png", png(2, 2, 3, plain(2, 2, {1, 2, 3})));
  spill(dir / "b.jpg", "this is no picture");
  for (const char* type :
       {"Float(N, 4, 2, 2)", "Float(N, 3, H, 2)", "Float(N, 12)", "Long(N, 3, 2, 2)"})
    expect_error(bad, {"'x'", type}, [&] { open({input("x", type)}); });
  expect_error(bad, {"'y'"}, [&] { open({kPicture[0], input("y", "Float(N)")}); });
  expect_error(bad, {"mean has 2 values"}, [&] {
    Dataset::open(dir.path(), kPicture, {1, {1, 2}, {}});
  });
  expect_error(bad, {"mean has 2 values", "3 channels"}, [&] {
    Dataset::open(dir.path(), {input("x", "Float(N, C, 2, 2)")}, {1, {1, 2}, {}});
  });
  Dataset data = open(kPicture);  // pictures are decoded when asked for
  EXPECT_NO_THROW(data.get(0, 1));
  expect_error(ErrorCode::corrupt, {"b.jpg"}, [&] { data.get(0, 2); });
}

TEST(Dataset, PicturesAtTheirOwnSizeAreOneAtATime) {
  TempDir dir;
  spill(dir / "a.png", png(3, 2, 3, plain(3, 2, {1, 2, 3})));
  spill(dir / "b.png", png(5, 7, 3, plain(5, 7, {4, 5, 6})));
  spill(dir / "c.png", png(5, 7, 3, plain(5, 7, {7, 8, 9})));
  const std::vector<InputSpec> open = {input("x", "Float(N, 3, H, W)")};
  Dataset data = Dataset::open(dir.path(), open, {2, {}, {}}, {Resize::To::none});
  EXPECT_EQ(data.fixed_batch(), 1);
  EXPECT_EQ(data.get(0, 1).inputs.at("x").shape(), (Shape{1, 3, 2, 3}));
  EXPECT_EQ(data.get(1, 1).inputs.at("x").shape(), (Shape{1, 3, 7, 5}));
  EXPECT_EQ(data.get(0, 1).inputs.at("x").at({0, 2, 1, 1}), 6);
  EXPECT_EQ(data.gather({1, 2}).inputs.at("x").at({1, 0, 6, 4}), 14) << "equal sizes are a batch";
  expect_error(ErrorCode::invalid_argument, {"(3, 2, 3)", "(3, 7, 5)", "one at a time"},
               [&] { data.get(0, 2); });
}

TEST(Dataset, PicturesAreResizedToASizeThatIsGiven) {
  TempDir dir;
  spill(dir / "a.png", png(3, 2, 3, plain(3, 2, {1, 2, 3})));
  spill(dir / "b.png", png(5, 7, 3, plain(5, 7, {4, 5, 6})));
  const auto open = [&](const std::string& type, Resize resize) {
    return Dataset::open(dir.path(), {input("x", type)}, {}, resize);
  };
  const Resize size{Resize::To::size, 4, 6};
  for (const std::string type : {"Float(N, 3, H, W)", "Float(N, 3, 4, W)", "Float(N, 3, 4, 6)"}) {
    Dataset data = open(type, size);
    EXPECT_EQ(data.fixed_batch(), 0);
    EXPECT_EQ(data.get(0, 2).inputs.at("x").shape(), (Shape{2, 3, 4, 6}));
  }
  const auto bad = ErrorCode::invalid_argument;
  expect_error(bad, {"4 x 6", "Float(N, 3, 6, 4)"}, [&] { open("Float(N, 3, 6, 4)", size); });
  expect_error(bad, {"0 x 6"}, [&] { open("Float(N, 3, H, W)", {Resize::To::size, 0, 6}); });
  expect_error(bad, {"Float(N, 3, H, W)", "--resize HxW", "--resize none"},
               [&] { open("Float(N, 3, H, W)", {}); });
  for (const std::string type : {"Float(N, 3, 4, 6)", "Float(N, 3, H, 6)"})
    expect_error(bad, {type, "own size", "height and width are open"},
                 [&] { open(type, {Resize::To::none}); });
  expect_error(bad, {"different sizes", "batches of 2"},
               [&] { open("Float(2, 3, H, W)", {Resize::To::none}); });
  write_npz(dir / "x.npz", {{"images", three()}});
  expect_error(bad, {"x.npz", "resized", "has none"},
               [&] { Dataset::open(dir / "x.npz", kOne, {}, size); });
}

TEST(Dataset, UnreadablePicturesAreNamedAtOnce) {
  TempDir dir;
  spill(dir / "a.png", png(2, 2, 3, plain(2, 2, {1, 2, 3})));
  std::filesystem::create_symlink(dir / "nowhere", dir / "b.png");
  expect_error(ErrorCode::not_found, {"b.png"}, [&] { Dataset::open(dir.path(), kPicture); });
}

// -- directories of arrays ------------------------------------------------------------------------

TEST(Dataset, ADirectoryOfNpyIsASampleAFile) {
  TempDir dir;
  const Tensor a = Tensor::arange(12).to(DType::float32).reshape({1, 2, 2, 3});
  write_npy(dir / "a.npy", a);
  write_npy(dir / "b.npy", a.squeeze(0));  // without the batch dimension
  write_npy(dir / "c.npy", Tensor::full({2, 2, 3}, 5, DType::uint8));
  spill(dir / "notes.txt", "");
  const std::vector<InputSpec> inputs = {input("x", "Float(N, 2, H, W)")};
  Dataset data = Dataset::open(dir.path(), inputs, {2, {1, 0}, {}});
  EXPECT_EQ(data.size(), 3);
  EXPECT_EQ(data.fixed_batch(), 0) << "all are of one size";
  EXPECT_FALSE(data.has_labels());
  const Batch batch = data.get(0, 3);
  EXPECT_EQ(batch.inputs.at("x").shape(), (Shape{3, 2, 2, 3}));
  EXPECT_EQ(batch.inputs.at("x").at({0, 0, 0, 1}), 1);
  EXPECT_EQ(batch.inputs.at("x").at({1, 1, 1, 2}), 22);
  EXPECT_EQ(batch.inputs.at("x").at({2, 1, 0, 0}), 10) << "uint8 is not scaled";
  write_npy(dir / "d.npy", Tensor::zeros({2, 4, 3}));
  data = Dataset::open(dir.path(), inputs);
  EXPECT_EQ(data.fixed_batch(), 1);
  EXPECT_EQ(data.get(3, 1).inputs.at("x").shape(), (Shape{1, 2, 4, 3}));
  EXPECT_EQ(data.get(0, 3).size, 3);
  expect_error(ErrorCode::invalid_argument, {"c.npy", "d.npy", "(1, 2, 4, 3)", "one at a time"},
               [&] { data.get(2, 2); });
}

TEST(Dataset, ADirectoryOfNpzHasAnArrayForEachInput) {
  TempDir dir;
  const auto write = [&](const std::string& name, int64_t length, int64_t label) {
    write_npz(dir / name, {{"ids", Tensor::arange(length).to(DType::int32)},
                           {"mask", Tensor::ones({1, length})},
                           {"state", Tensor::full({2, 3}, static_cast<double>(length))},
                           {"labels", Tensor::from(std::vector<int64_t>{label}, {})}});
  };
  write("a.npz", 4, 1);
  write("b.npz", 6, 0);
  Dataset data = Dataset::open(
      dir.path(),
      {input("ids", "Long(N, T)"), input("mask", "Float(N, T)"), input("state", "Float(2, 3)")});
  EXPECT_EQ(data.size(), 2);
  EXPECT_EQ(data.fixed_batch(), 1);
  ASSERT_TRUE(data.has_labels());
  const Batch batch = data.get(1, 1);
  EXPECT_EQ(batch.labels.to_vector<int64_t>(), (Ints{0}));
  EXPECT_EQ(batch.inputs.at("ids").to_vector<int64_t>(), (Ints{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(batch.inputs.at("ids").shape(), (Shape{1, 6}));
  EXPECT_EQ(batch.inputs.at("mask").shape(), (Shape{1, 6}));
  EXPECT_EQ(batch.inputs.at("state").shape(), (Shape{2, 3})) << "no batch dimension: as it is";
  EXPECT_EQ(batch.inputs.at("state").at({1, 2}), 6);
}

TEST(Dataset, ArraysInSubdirectoriesAreClasses) {
  TempDir dir;
  for (const std::string name : {"cat", "dog"}) {
    std::filesystem::create_directory(dir / name);
    write_npy(dir / name / "1.npy", Tensor::zeros({2, 1, 2}));
  }
  write_npy(dir / "dog" / "2.npy", Tensor::zeros({2, 1, 2}));
  Dataset data = Dataset::open(dir.path(), kOne);
  EXPECT_EQ(data.classes(), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(data.get(0, 3).labels.to_vector<int64_t>(), (Ints{0, 1, 1}));
}

TEST(Dataset, MistakesInADirectoryOfArraysAreNamedAtOnce) {
  const auto bad = ErrorCode::invalid_argument;
  const auto expect = [&](ErrorCode code, const std::map<std::string, Tensor>& files,
                          const std::vector<std::string>& parts,
                          const std::vector<InputSpec>& inputs = kOne, const Preprocess& p = {}) {
    TempDir dir;
    for (const auto& [name, array] : files) write_npy(dir / name, array);
    expect_error(code, parts, [&] { Dataset::open(dir.path(), inputs, p); });
  };
  const Tensor good = Tensor::zeros({2, 1, 2});
  expect(bad, {{"a.npy", good}, {"b.npy", good.to(DType::float64)}}, {"b.npy", "float64"});
  expect(bad, {{"a.npy", good}, {"b.npy", Tensor::zeros({3, 1, 2})}},
         {"b.npy", "(3, 1, 2)", "Float(N, 2, 1, 2)", "one sample"});
  expect(bad, {{"a.npy", Tensor::zeros({4, 2, 1, 2})}}, {"a.npy", "(4, 2, 1, 2)", "one sample"});
  expect(bad, {{"a.npy", Tensor::zeros({2})}}, {"a.npy", "(2)", "Float(N, 2, 1, 2)"});
  expect(bad, {{"a.npy", good}}, {"a.npy", "single array", "'y' Float(N)"},
         {kOne[0], input("y", "Float(N)")});
  expect(bad, {{"a.npy", Tensor::zeros({2, 0})}}, {"a.npy", "it is empty"},
         {input("x", "Float(N, 2, H)")});
  expect(bad, {{"a.npy", good}, {"b.npy", Tensor::zeros({3, 1, 2})}}, {"b.npy", "3 channels"},
         {input("x", "Float(N, C, 1, 2)")}, {1, {1, 2}, {}});
  // All that do not fit, the first of them by name.
  expect(bad,
         {{"a.npy", good.to(DType::float64)},
          {"b.npy", Tensor::zeros({2})},
          {"c.npy", Tensor::zeros({3})},
          {"d.npy", Tensor::zeros({4})},
          {"e.npy", Tensor::zeros({5})}},
         {"a.npy", "float64", "; ", "b.npy", "c.npy", "and 2 more"});

  TempDir dir;
  spill(dir / "a.npy", "no array");
  expect_error(ErrorCode::corrupt, {"a.npy"}, [&] { Dataset::open(dir.path(), kOne); });
  std::filesystem::remove(dir / "a.npy");
  std::filesystem::create_symlink(dir / "nowhere", dir / "b.npz");
  expect_error(ErrorCode::not_found, {"b.npz"}, [&] { Dataset::open(dir.path(), kOne); });
  std::filesystem::remove(dir / "b.npz");
  write_npz(dir / "c.npz", {{"ids", Tensor::arange(3)}, {"mask", Tensor::ones({4})}});
  expect_error(bad, {"c.npz", "'mask'", "T is 3"}, [&] {
    Dataset::open(dir.path(), {input("ids", "Long(N, T)"), input("mask", "Float(N, T)")});
  });
  write_npz(dir / "c.npz", {{"x", good}, {"labels", Tensor::from(std::vector<int64_t>{1}, {1})}});
  write_npy(dir / "d.npy", good);
  expect_error(bad, {"d.npy", "no array 'labels'"}, [&] { Dataset::open(dir.path(), kOne); });
  spill(dir / "e.png", png(2, 2, 3, plain(2, 2, {1, 2, 3})));
  expect_error(bad, {"1 pictures and 2 files"}, [&] { Dataset::open(dir.path(), kOne); });
}

TEST(Dataset, ANumberThatIsNotFiniteNamesItsFile) {
  TempDir dir;
  write_npy(dir / "a.npy", Tensor::zeros({2, 1, 2}));
  write_npy(dir / "b.npy", Tensor::full({2, 1, 2}, NAN));
  Dataset data = Dataset::open(dir.path(), kOne);
  EXPECT_NO_THROW(data.get(0, 1));
  expect_error(ErrorCode::invalid_argument, {"b.npy", "input 'x'", "element 0 is NaN"},
               [&] { data.get(0, 2); });
}

// All of the arrays of an .npz that do not fit.
TEST(Dataset, EveryArrayThatDoesNotFitIsNamed) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"a", three(DType::int64)}, {"b", Tensor::ones({3, 5})}});
  expect_error(ErrorCode::invalid_argument, {"'a' is int64", "; ", "'b' has shape (3, 5)"}, [&] {
    Dataset::open(dir / "a.npz", {input("a", "Float(N, 2, 1, 2)"), input("b", "Float(N, 4)")});
  });
}

// -- data -----------------------------------------------------------------------------------------

TEST(DataDataset, Cifar10) {
  OCTET_NEED_DATA("cifar10/test2000.npz");
  Dataset data = Dataset::open(testing::data_dir() / "cifar10/test2000.npz",
                               {input("input", "Float(N, 3, 32, 32)")});
  EXPECT_EQ(data.size(), 2000);
  Batch batch = data.get(1990, 100);
  EXPECT_EQ(batch.inputs.at("input").shape(), (Shape{10, 3, 32, 32}));
  EXPECT_EQ(batch.labels.shape(), Shape{10});
  for (float v : batch.inputs.at("input").to_vector<float>())
    ASSERT_TRUE(v >= 0 && v <= 255 && v == std::floor(v));
}

TEST(DataDataset, Photos) {
  OCTET_NEED_DATA("images/face-1.jpg");
  Dataset data =
      Dataset::open(testing::data_dir() / "images", {input("input", "Float(1, 3, 240, 320)")},
                    {1 / 128.0f, {127 / 128.0f}, {}});
  EXPECT_EQ(data.size(), 10);
  EXPECT_EQ(data.fixed_batch(), 1);
  for (int64_t i = 0; i < 3; ++i)
    for (float v : data.get(i, 1).inputs.at("input").to_vector<float>())
      ASSERT_TRUE(v >= -1 && v <= 1);
  // In name order: face-1.jpg, face-10.jpg, ...
  Tensor second = resize_bilinear(read_image(testing::data_dir() / "images/face-10.jpg"), 240, 320);
  EXPECT_EQ(data.get(1, 1).inputs.at("input").at({0, 0, 5, 5}),
            static_cast<float>(second.at({0, 5, 5})) / 128 - 127 / 128.0f);
}

}  // namespace
}  // namespace octet
