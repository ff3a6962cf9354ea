#include "octet/io/npz.h"

#include <gtest/gtest.h>

#include "tests/data.h"
#include "tests/expect_error.h"
#include "tests/io/zip_bytes.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::bytes;
using testing::count_files;
using testing::expect_error;
using testing::npy;
using testing::npy_header_dict;
using testing::slurp;
using testing::spill;
using testing::TempDir;
using testing::Zip;

// -- .npy -----------------------------------------------------------------------------------------

TEST(Npy, ReadsEveryDtype) {
  TempDir dir;
  const struct {
    const char* descr;
    DType dtype;
    std::string data;
  } rows[] = {{"<f4", DType::float32, bytes<float>({1.5f, -2})},
              {"<f8", DType::float64, bytes<double>({1.5, -2})},
              {"<f2", DType::float16, bytes<uint16_t>({0x3e00, 0xc000})},
              {"<i8", DType::int64, bytes<int64_t>({1, -2})},
              {"<i4", DType::int32, bytes<int32_t>({1, -2})},
              {"<i2", DType::int16, bytes<int16_t>({1, -2})},
              {"|i1", DType::int8, bytes<int8_t>({1, -2})},
              {"<i1", DType::int8, bytes<int8_t>({1, -2})},
              {"|u1", DType::uint8, bytes<uint8_t>({1, 254})},
              {"|b1", DType::bool_, bytes<uint8_t>({1, 0})}};
  for (const auto& row : rows) {
    spill(dir / "a.npy", npy(npy_header_dict(row.descr, "(2,)"), row.data));
    Tensor t = read_npy(dir / "a.npy");
    EXPECT_EQ(t.dtype(), row.dtype) << row.descr;
    EXPECT_EQ(t.shape(), Shape{2});
    const Tensor data = io::in_file_order(t);
    EXPECT_EQ(std::string(static_cast<const char*>(data.raw_data()), row.data.size()), row.data);
  }
}

TEST(Npy, ReadsEveryVersionAndHeaderStyle) {
  TempDir dir;
  std::string data = bytes<int32_t>({1, 2, 3, 4, 5, 6});
  for (int version : {1, 2, 3})
    for (const char* header :
         {"{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }   \n",
          "{'shape': (2L, 3L), 'descr': \"<i4\", 'fortran_order': False}\n",
          "{'descr':'<i4','fortran_order':False,'shape':(2,3)}",
          "{ 'fortran_order' : False , 'shape' : ( 2 , 3 , ) , 'descr' : '=i4' , } \n"}) {
      spill(dir / "a.npy", npy(header, data, version));
      Tensor t = read_npy(dir / "a.npy");
      EXPECT_EQ(t.shape(), (Shape{2, 3})) << header;
      EXPECT_EQ(t.to_vector<int32_t>(), (std::vector<int32_t>{1, 2, 3, 4, 5, 6}));
    }
}

TEST(Npy, ScalarsAndEmptyArrays) {
  TempDir dir;
  spill(dir / "a.npy", npy(npy_header_dict("<f4", "()"), bytes<float>({7})));
  EXPECT_EQ(read_npy(dir / "a.npy").item(), 7);
  spill(dir / "a.npy", npy(npy_header_dict("<f4", "(0, 3)"), ""));
  EXPECT_EQ(read_npy(dir / "a.npy").shape(), (Shape{0, 3}));
}

TEST(Npy, FortranOrderBecomesRowMajor) {
  TempDir dir;
  // a[i][j][k] = 100 i + 10 j + k, stored with i fastest.
  std::string data;
  for (int32_t k = 0; k < 4; ++k)
    for (int32_t j = 0; j < 3; ++j)
      for (int32_t i = 0; i < 2; ++i) data += bytes<int32_t>({100 * i + 10 * j + k});
  spill(dir / "a.npy", npy(npy_header_dict("<i4", "(2, 3, 4)", "True"), data));
  Tensor t = read_npy(dir / "a.npy");
  EXPECT_TRUE(t.is_contiguous());
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 3; ++j)
      for (int64_t k = 0; k < 4; ++k) EXPECT_EQ(t.at({i, j, k}), 100 * i + 10 * j + k);
}

TEST(Npy, BoolsBecomeZeroOrOne) {
  TempDir dir;
  spill(dir / "a.npy", npy(npy_header_dict("|b1", "(3,)"), bytes<uint8_t>({0, 7, 255})));
  EXPECT_EQ(read_npy(dir / "a.npy").to_vector<bool>(), (std::vector<bool>{false, true, true}));
}

TEST(Npy, WideUnsignedIntegersAreReadIntoSignedOnes) {
  TempDir dir;
  spill(dir / "a.npy", npy(npy_header_dict("<u2", "(2,)"), bytes<uint16_t>({1, 65535})));
  EXPECT_EQ(read_npy(dir / "a.npy").to_vector<uint16_t>(), (std::vector<uint16_t>{1, 65535}));
  spill(dir / "a.npy", npy(npy_header_dict("<u4", "(2,)"), bytes<uint32_t>({1, 4294967295u})));
  EXPECT_EQ(read_npy(dir / "a.npy").to_vector<int64_t>(), (std::vector<int64_t>{1, 4294967295}));
  spill(dir / "a.npy", npy(npy_header_dict("<u8", "(1,)"), bytes<uint64_t>({1})));
  EXPECT_EQ(read_npy(dir / "a.npy").to_vector<int64_t>(), (std::vector<int64_t>{1}));
  spill(dir / "a.npy", npy(npy_header_dict("<u8", "(1,)"), bytes<uint64_t>({uint64_t{1} << 63})));
  expect_error(ErrorCode::unsupported, {"a.npy", "9223372036854775808"},
               [&] { read_npy(dir / "a.npy"); });
}

TEST(Npy, DtypesOctetLacksAreNamed) {
  TempDir dir;
  for (const char* descr : {">f4", "<c8", "|S3", "<U3", "|O", "<f16", "|V2", "", "f", "<M8[ns]"}) {
    spill(dir / "a.npy", npy(npy_header_dict(descr, "(1,)"), "0000000000000000"));
    expect_error(ErrorCode::unsupported, {"a.npy", std::string("'") + descr + "'"},
                 [&] { read_npy(dir / "a.npy"); });
  }
  spill(dir / "a.npy",
        npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", "0000"));
  expect_error(ErrorCode::unsupported, {"structures"}, [&] { read_npy(dir / "a.npy"); });
}

TEST(Npy, DamageIsNamed) {
  std::string many_ones;
  for (int i = 0; i < 65; ++i) many_ones += "1,";
  TempDir dir;
  const struct {
    std::string bytes;
    const char* part;
  } rows[] = {
      {"", "not a .npy file"},
      {"hello, this is text", "not a .npy file"},
      {npy(npy_header_dict("<f4", "(2,)"), "1234567"), "needs 8 bytes"},
      {npy(npy_header_dict("<f4", "(2,)"), "123456789"), "needs 8 bytes"},
      {npy(npy_header_dict("<f4", "(2,)"), "").substr(0, 30), "the .npy header has"},
      {npy(npy_header_dict("<f4", "(-2,)"), "12345678"), "shape"},
      {npy(npy_header_dict("<f4", "(99999999999999999999,)"), "12345678"), "shape"},
      {npy(npy_header_dict("<f4", "(4294967296, 4294967296)"), ""), "too large"},
      {npy(npy_header_dict("<f4", "(" + many_ones + ")"), "1234"), "more than 64"},
      {npy(npy_header_dict("<f4", "(281474976710656, 281474976710656, 0)"), ""), "too large"},
      {npy(npy_header_dict("<f4", "(2,"), "12345678"), "header is damaged"},
      {npy(npy_header_dict("<f4", "2"), "12345678"), "header is damaged"},
      {npy(npy_header_dict("<f4", "(2,)", "Maybe"), "12345678"), "fortran_order"},
      {npy("{'descr': '<f4', 'shape': (2,)}", "12345678"), "expected the keys"},
      {npy("{'descr': '<f4', 'descr': '<f4', 'shape': (2,)}", "12345678"), "twice"},
      {npy("{'descr': '<f4", "12345678"), "unterminated"},
      {npy("{}", ""), "expected the keys"},
      {npy("{'colour': 'red'}", ""), "colour"},
      {npy(npy_header_dict("<f4", "(2,)") + "x", "12345678"), "after the closing brace"}};
  for (const auto& row : rows) {
    spill(dir / "a.npy", row.bytes);
    expect_error(ErrorCode::corrupt, {"a.npy", row.part}, [&] { read_npy(dir / "a.npy"); });
  }
  spill(dir / "a.npy", npy(npy_header_dict("<f4", "(2,)"), "12345678", 4));
  expect_error(ErrorCode::unsupported, {"version 4"}, [&] { read_npy(dir / "a.npy"); });
  expect_error(ErrorCode::not_found, {"none.npy"}, [&] { read_npy(dir / "none.npy"); });
}

std::map<std::string, Tensor> arrays_of_every_dtype() {
  std::map<std::string, Tensor> tensors;
  for (DType d : {DType::float32, DType::float64, DType::float16, DType::int64, DType::int32,
                  DType::int16, DType::int8, DType::uint8, DType::bool_})
    tensors[to_string(d)] = Tensor::rand({3, 5}, 1, 0, 100).to(d);
  tensors["scalar"] = Tensor::scalar(3);
  tensors["empty"] = Tensor::zeros({0, 4});
  tensors["transposed"] = Tensor::randn({4, 6}, 3).transpose(0, 1);
  tensors["ünï/code"] = Tensor::arange(5);
  return tensors;
}

TEST(Npy, RoundTrips) {
  TempDir dir;
  for (const auto& [name, tensor] : arrays_of_every_dtype()) {
    write_npy(dir / "a.npy", tensor);
    EXPECT_TRUE(equal(read_npy(dir / "a.npy"), tensor)) << name;
    // NumPy maps files: the data must start on a multiple of 64.
    EXPECT_EQ((slurp(dir / "a.npy").size() - static_cast<size_t>(tensor.nbytes())) % 64, 0u);
  }
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(Npy, WritesWhatNumPyWrites) {
  TempDir dir;
  write_npy(dir / "a.npy", Tensor::from({1.0f, 2.0f}));
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  header.resize(118 - 1, ' ');
  EXPECT_EQ(slurp(dir / "a.npy"), npy(header + "\n", bytes<float>({1, 2})));
}

TEST(Npy, DtypesNumPyLacksAreAnError) {
  TempDir dir;
  Tensor q = quantize_per_tensor(Tensor::ones({2}), 1, 0, DType::qint8);
  expect_error(ErrorCode::invalid_argument, {"a.npy", "qint8", "int_repr"},
               [&] { write_npy(dir / "a.npy", q); });
  expect_error(ErrorCode::invalid_argument, {"array 'x'", "bfloat16"}, [&] {
    write_npz(dir / "a.npz", {{"x", Tensor::ones({2}, DType::bfloat16)}});
  });
  EXPECT_EQ(count_files(dir.path()), 0u);
}

// -- .npz -----------------------------------------------------------------------------------------

TEST(Npz, RoundTripsStoredAndDeflated) {
  TempDir dir;
  auto tensors = arrays_of_every_dtype();
  tensors["large"] = Tensor::randn({100, 1000}, 5).to(DType::int8);
  for (bool compress : {false, true}) {
    write_npz(dir / "a.npz", tensors, compress);
    auto back = read_npz(dir / "a.npz");
    ASSERT_EQ(back.size(), tensors.size());
    for (const auto& [name, tensor] : tensors) EXPECT_TRUE(equal(back.at(name), tensor)) << name;
    EXPECT_EQ(list_npz(dir / "a.npz").size(), tensors.size());
  }
  write_npz(dir / "b.npz", tensors, true);
  EXPECT_EQ(slurp(dir / "a.npz"), slurp(dir / "b.npz")) << "the same tensors, the same bytes";
  write_npz(dir / "c.npz", tensors, false);
  EXPECT_LT(std::filesystem::file_size(dir / "a.npz"), std::filesystem::file_size(dir / "c.npz"));
}

TEST(Npz, ReadsOnlyWhatIsWanted) {
  TempDir dir;
  write_npz(dir / "a.npz", {{"images", Tensor::ones({2})}, {"labels", Tensor::zeros({3})}});
  auto some = read_npz(dir / "a.npz", {"labels"});
  EXPECT_EQ(some.size(), 1u);
  EXPECT_TRUE(some.count("labels"));
  expect_error(ErrorCode::not_found, {"a.npz", "'image'", "did you mean", "images, labels"},
               [&] { read_npz(dir / "a.npz", {"image"}); });
}

TEST(Npz, ListsWithoutReading) {
  TempDir dir;
  Zip zip;
  zip.crc ^= 1;  // a wrong CRC is noticed only when the data is read
  spill(dir / "a.npz", zip.str());
  auto entries = list_npz(dir / "a.npz");
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[0].dtype, DType::uint8);
  EXPECT_EQ(entries[0].shape, Shape{3});
  expect_error(ErrorCode::corrupt, {"array 'a'", "CRC"}, [&] { read_npz(dir / "a.npz"); });
}

TEST(Npz, ReadsArchivesOfOtherWriters) {
  TempDir dir;
  Zip plain, local_extra, comment, zip64, zip64_sizes, other;
  local_extra.local_extra = std::string("\x01\x00\x04\x00wxyz", 8);
  comment.comment = "a comment with PK\5\6 in it, and more behind it than an end record has";
  zip64.zip64 = true;
  zip64_sizes.central_extra = Zip::n(1, 2) + Zip::n(24, 2) + Zip::n(zip64_sizes.size, 8) +
                              Zip::n(zip64_sizes.packed, 8) + Zip::n(0, 8);
  zip64_sizes.size = zip64_sizes.packed = zip64_sizes.offset = 0xffffffff;
  zip64_sizes.zip64 = true;
  for (const Zip* zip : {&plain, &local_extra, &comment, &zip64, &zip64_sizes}) {
    spill(dir / "a.npz", zip->str());
    EXPECT_EQ(read_npz(dir / "a.npz").at("a").to_vector<uint8_t>(),
              (std::vector<uint8_t>{'a', 'b', 'c'}));
  }
}

// 300 kB that would inflate to 300 MB: refused before anything is inflated.
TEST(Npz, InflatedSizesAreLimited) {
  TempDir dir;
  Zip zip;
  zip.contents = std::string(300'000, 'x');
  zip.update();
  zip.method = 8;
  zip.size = 300'000'000;
  spill(dir / "a.npz", zip.str());
  expect_error(ErrorCode::corrupt, {"a.npz", "arrays of 300000000 bytes and more", "np.savez"},
               [&] { read_npz(dir / "a.npz"); });
}

TEST(Npz, DamageIsNamed) {
  TempDir dir;
  auto check = [&](ErrorCode code, const char* part, const std::string& bytes) {
    spill(dir / "a.npz", bytes);
    expect_error(code, {"a.npz", part}, [&] { read_npz(dir / "a.npz"); });
  };
  auto bent = [](auto&& bend) {
    Zip zip;
    bend(zip);
    return zip.str();
  };
  std::string whole = Zip().str();
  check(ErrorCode::corrupt, "not an .npz", "");
  check(ErrorCode::corrupt, "not an .npz", "some text");
  check(ErrorCode::corrupt, "truncated", whole.substr(0, whole.size() - 1));
  check(ErrorCode::corrupt, "truncated", whole.substr(0, 60));
  check(ErrorCode::corrupt, "CRC", bent([](Zip& z) { z.contents.back() = 'X'; }));
  check(ErrorCode::corrupt, "does not fit", bent([](Zip& z) { z.count = 9; }));
  check(ErrorCode::corrupt, "no .npy array", bent([](Zip& z) { z.count = 0; }));
  check(ErrorCode::corrupt, "no .npy array", bent([](Zip& z) { z.name = "data.pkl"; }));
  check(ErrorCode::corrupt, "zip header", bent([](Zip& z) { z.offset = 5; }));
  check(ErrorCode::corrupt, "zip header", bent([](Zip& z) { z.offset = 0xfffffff0; }));
  check(ErrorCode::corrupt, "truncated", bent([](Zip& z) { z.packed = z.size = 100000; }));
  check(ErrorCode::corrupt, "cannot come from", bent([](Zip& z) { z.size += 1; }));
  check(ErrorCode::corrupt, "cannot come from",
        bent([](Zip& z) { z.method = 8, z.size = 0xfffffff0; }));
  check(ErrorCode::corrupt, "compressed data is damaged", bent([](Zip& z) { z.method = 8; }));
  check(ErrorCode::corrupt, "zip64", bent([](Zip& z) {
          z.size = 0xffffffff, z.central_extra = std::string("\x01\x00\x04\x00wxyz", 8);
        }));
  check(ErrorCode::corrupt, "extra field",
        bent([](Zip& z) { z.central_extra = std::string("\x01\x00\xff\x00wxyz", 8); }));
  check(ErrorCode::unsupported, "encrypted", bent([](Zip& z) { z.flags = 1; }));
  check(ErrorCode::unsupported, "compression method 12", bent([](Zip& z) { z.method = 12; }));
}

// -- data -----------------------------------------------------------------------------------------

TEST(DataNpz, ReadsWhatNumPyWrote) {
  OCTET_NEED_DATA("cifar10/test2000.npz");
  auto arrays = read_npz(testing::data_dir() / "cifar10/test2000.npz");
  EXPECT_EQ(arrays.at("images").type(), TensorType(DType::uint8, Shape{2000, 3, 32, 32}));
  EXPECT_EQ(arrays.at("labels").type(), TensorType(DType::int64, Shape{2000}));
  std::vector<int> count(10);
  for (int64_t label : arrays.at("labels").to_vector<int64_t>())
    ++count.at(static_cast<size_t>(label));
  for (int n : count) EXPECT_GT(n, 150);
}

}  // namespace
}  // namespace octet
