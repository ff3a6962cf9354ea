// ONNX's backend node tests and whole networks, changed: each model with one thing that is wrong,
// left out or more than there should be is run or refused, with one line that says why; and
// whatever input becomes a constant, the outputs stay the same.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "octet/base/error.h"
#include "octet/graph/trace.h"
#include "octet/io/onnx/export.h"
#include "octet/nn/nn.h"
#include "octet/quant/workflow/fx.h"
#include "tests/data.h"
#include "tests/graph/random_net.h"
#include "tests/io/onnx/test_util.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

namespace fs = std::filesystem;

struct NodeTest {
  std::string name;
  onnx::ModelProto model;
  std::vector<Tensor> inputs;
};

std::vector<NodeTest> all_node_tests() {
  std::vector<fs::path> dirs;
  for (const auto& entry : fs::directory_iterator(data_dir() / "onnx-node-tests"))
    dirs.push_back(entry.path());
  std::sort(dirs.begin(), dirs.end());
  std::vector<NodeTest> tests;
  for (const fs::path& dir : dirs) {
    NodeTest& test = tests.emplace_back();
    test.name = dir.filename().string();
    if (!test.model.ParseFromString(slurp(dir / "model.onnx")))
      throw std::runtime_error(test.name + ": it is no model");
    const fs::path data = dir / "test_data_set_0";
    for (int i = 0; fs::exists(data / ("input_" + std::to_string(i) + ".pb")); ++i)
      test.inputs.push_back(io::read_onnx_tensor(data / ("input_" + std::to_string(i) + ".pb")));
  }
  return tests;
}

// What is wrong with how a model is refused; "" if it is run, or refused as it should be.
std::string complaint(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& e) {
    const std::string message = e.what();
    if (e.code() == ErrorCode::internal) return "an internal error: " + message;
    if (message.empty()) return "an error that says nothing";
    if (message.find('\n') != std::string::npos) return "several lines: " + message;
  } catch (const std::exception& e) {
    return std::string("not an octet::Error: ") + e.what();
  }
  return "";
}

struct Counts {
  int run = 0, refused = 0;
};

// Imports the model, runs it on the inputs if it takes as many, and writes and reads it again.
void try_model(const onnx::ModelProto& model, const std::vector<Tensor>& inputs,
               const std::string& what, Counts& counts) {
  bool imported = false;
  const std::string of_import = complaint([&] {
    const graph::Graph g = io::import_onnx_bytes(model.SerializeAsString(), "changed.onnx");
    imported = true;
    g.check();
    EXPECT_EQ(complaint([&] {
                if (g.inputs().size() == inputs.size()) run_graph(g, inputs);
              }),
              "")
        << what << ", when it runs";
    EXPECT_EQ(complaint([&] { io::import_onnx_bytes(io::to_onnx_bytes(g), "again.onnx"); }), "")
        << what << ", written and read again";
    EXPECT_EQ(complaint([&] {
                io::import_onnx_bytes(io::to_onnx_bytes(g, {.target = io::OnnxTarget::tensorrt}));
              }),
              "")
        << what << ", written for TensorRT";
  });
  EXPECT_EQ(of_import, "") << what;
  ++(imported ? counts.run : counts.refused);
}

using Change = std::function<void(onnx::ModelProto&)>;
using Changes = std::vector<std::pair<std::string, Change>>;

onnx::NodeProto& node_in(onnx::ModelProto& model, int n) {
  return *model.mutable_graph()->mutable_node(n);
}

// Numbers at which readers of attributes change their minds.
constexpr int64_t kOddNumbers[] = {-9, -1, 0, 1, 2, 3, 9, int64_t{1} << 40};

void set_numbers(onnx::AttributeProto& a, const std::vector<int64_t>& values) {
  a.clear_ints();
  for (const int64_t v : values) a.add_ints(v);
}

// Each attribute left out, of another type, and with other values.
Changes changes_of_attributes(const onnx::ModelProto& model) {
  Changes changes;
  for (int n = 0; n < model.graph().node_size(); ++n)
    for (int i = 0; i < model.graph().node(n).attribute_size(); ++i) {
      const onnx::AttributeProto& attribute = model.graph().node(n).attribute(i);
      const auto add = [&](const std::string& what,
                           const std::function<void(onnx::AttributeProto&)>& change) {
        changes.emplace_back(attribute.name() + " " + what, [=](onnx::ModelProto& m) {
          change(*node_in(m, n).mutable_attribute(i));
        });
      };
      changes.emplace_back("without " + attribute.name(), [=](onnx::ModelProto& m) {
        node_in(m, n).mutable_attribute()->DeleteSubrange(i, 1);
      });
      add("of another name", [](auto& a) { a.set_name("not_" + a.name()); });
      add("as a number", [](auto& a) {
        a.set_type(onnx::AttributeProto::INT);
        a.set_i(1);
      });
      add("as a text", [](auto& a) {
        a.set_type(onnx::AttributeProto::STRING);
        a.set_s("nonsense");
      });
      add("as a real number", [](auto& a) {
        a.set_type(onnx::AttributeProto::FLOAT);
        a.set_f(std::numeric_limits<float>::quiet_NaN());
      });
      if (attribute.type() == onnx::AttributeProto::INT)
        for (const int64_t v : kOddNumbers)
          add("of " + std::to_string(v), [=](auto& a) { a.set_i(v); });
      if (attribute.type() == onnx::AttributeProto::FLOAT)
        for (const float v : {-1.F, 0.F, 1e38F, std::numeric_limits<float>::infinity()})
          add("of " + std::to_string(v), [=](auto& a) { a.set_f(v); });
      if (attribute.type() == onnx::AttributeProto::STRING)
        for (const char* v : {"", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "linear", "wrap",
                              "reflect", "cubic", "none", "tanh", "DCR", "bidirectional"})
          add(std::string("of '") + v + "'", [=](auto& a) { a.set_s(v); });
      if (attribute.type() == onnx::AttributeProto::INTS) {
        const std::vector<int64_t> now(attribute.ints().begin(), attribute.ints().end());
        add("empty", [](auto& a) { a.clear_ints(); });
        add("one longer", [](auto& a) { a.add_ints(1); });
        add("one shorter", [=](auto& a) {
          set_numbers(a, {now.begin(), now.end() - std::min<std::ptrdiff_t>(1, std::ssize(now))});
        });
        for (const int64_t v : kOddNumbers)
          for (size_t k = 0; k < now.size(); ++k)
            add("with " + std::to_string(v) + " at " + std::to_string(k), [=](auto& a) {
              std::vector<int64_t> next = now;
              next[k] = v;
              set_numbers(a, next);
            });
      }
    }
  return changes;
}

// Operands left out, more of them, results that nobody asked for, other operators and versions.
Changes changes_of_nodes(const onnx::ModelProto& model) {
  Changes changes;
  for (int n = 0; n < model.graph().node_size(); ++n) {
    const onnx::NodeProto& node = model.graph().node(n);
    for (int i = 0; i < node.input_size(); ++i) {
      changes.emplace_back("without input " + std::to_string(i),
                           [=](onnx::ModelProto& m) { node_in(m, n).set_input(i, ""); });
      changes.emplace_back("with input " + std::to_string(i) + " of another name",
                           [=](onnx::ModelProto& m) { node_in(m, n).set_input(i, "nobody"); });
      changes.emplace_back("with inputs up to " + std::to_string(i), [=](onnx::ModelProto& m) {
        auto& inputs = *node_in(m, n).mutable_input();
        inputs.DeleteSubrange(i, inputs.size() - i);
      });
      for (int j = 0; j < i; ++j)
        changes.emplace_back(
            "with inputs " + std::to_string(j) + " and " + std::to_string(i) + " exchanged",
            [=](onnx::ModelProto& m) { node_in(m, n).mutable_input()->SwapElements(i, j); });
    }
    if (node.input_size() > 0)
      changes.emplace_back("with one input more", [=](onnx::ModelProto& m) {
        const std::string first = node_in(m, n).input(0);
        node_in(m, n).add_input(first);
      });
    changes.emplace_back("with one output more",
                         [=](onnx::ModelProto& m) { node_in(m, n).add_output("more"); });
    for (int i = 0; i < node.output_size(); ++i)
      changes.emplace_back("without output " + std::to_string(i),
                           [=](onnx::ModelProto& m) { node_in(m, n).set_output(i, ""); });
    for (const char* domain : {kMicrosoft, "ai.onnx.ml", "nowhere"})
      changes.emplace_back(std::string("of the domain ") + domain,
                           [=](onnx::ModelProto& m) { node_in(m, n).set_domain(domain); });
  }
  for (const int64_t version : {1, 7, 9, 10, 11, 13, 18, 23, 99})
    changes.emplace_back("of opset " + std::to_string(version), [=](onnx::ModelProto& m) {
      m.mutable_opset_import(0)->set_version(version);
    });
  return changes;
}

// Inputs of other types, and of other, open and missing shapes.
Changes changes_of_inputs(const onnx::ModelProto& model) {
  Changes changes;
  for (int i = 0; i < model.graph().input_size(); ++i) {
    const std::string of = model.graph().input(i).name();
    const auto add = [&](const std::string& what,
                         const std::function<void(onnx::TypeProto::Tensor&)>& change) {
      changes.emplace_back(of + " " + what, [=](onnx::ModelProto& m) {
        change(*m.mutable_graph()->mutable_input(i)->mutable_type()->mutable_tensor_type());
      });
    };
    for (const int type :
         {onnx::TensorProto::FLOAT, onnx::TensorProto::INT64, onnx::TensorProto::BOOL,
          onnx::TensorProto::UINT8, onnx::TensorProto::FLOAT16, onnx::TensorProto::STRING})
      add("of type " + std::to_string(type), [=](auto& t) { t.set_elem_type(type); });
    const int rank = model.graph().input(i).type().tensor_type().shape().dim_size();
    add("without a shape", [](auto& t) { t.clear_shape(); });
    add("with one dimension more", [](auto& t) { t.mutable_shape()->add_dim()->set_dim_value(1); });
    add("with open dimensions", [](auto& t) {
      int number = 0;
      for (auto& d : *t.mutable_shape()->mutable_dim())
        d.set_dim_param("d" + std::to_string(number++));
    });
    for (int d = 0; d < rank; ++d) {
      add("without dimension " + std::to_string(d),
          [=](auto& t) { t.mutable_shape()->mutable_dim()->DeleteSubrange(d, 1); });
      for (const int64_t size : {-1, 0, 1, 7})
        add("with " + std::to_string(size) + " in dimension " + std::to_string(d),
            [=](auto& t) { t.mutable_shape()->mutable_dim(d)->set_dim_value(size); });
    }
  }
  return changes;
}

// Constants of other shapes, types and values.
Changes changes_of_constants(const onnx::ModelProto& model) {
  Changes changes;
  for (int i = 0; i < model.graph().initializer_size(); ++i) {
    const onnx::TensorProto& constant = model.graph().initializer(i);
    const auto add = [&](const std::string& what,
                         const std::function<void(onnx::TensorProto&)>& change) {
      changes.emplace_back(constant.name() + " " + what, [=](onnx::ModelProto& m) {
        change(*m.mutable_graph()->mutable_initializer(i));
      });
    };
    add("of no elements", [](auto& t) {
      t.clear_dims();
      t.add_dims(0);
      t.clear_raw_data();
    });
    add("with one dimension more", [](auto& t) { t.add_dims(1); });
    add("in one dimension", [](auto& t) {
      int64_t n = 1;
      for (const int64_t d : t.dims()) n *= d;
      t.clear_dims();
      t.add_dims(n);
    });
    add("cut off", [](auto& t) { t.mutable_raw_data()->resize(t.raw_data().size() / 2); });
    add("of zeros", [](auto& t) {
      std::fill(t.mutable_raw_data()->begin(), t.mutable_raw_data()->end(), '\0');
    });
    add("of ones in all bits", [](auto& t) {
      std::fill(t.mutable_raw_data()->begin(), t.mutable_raw_data()->end(), '\xff');
    });
    for (const int type :
         {onnx::TensorProto::FLOAT, onnx::TensorProto::INT64, onnx::TensorProto::INT32,
          onnx::TensorProto::INT8, onnx::TensorProto::UINT8})
      add("of type " + std::to_string(type), [=](auto& t) { t.set_data_type(type); });
    changes.emplace_back("without " + constant.name(), [=](onnx::ModelProto& m) {
      m.mutable_graph()->mutable_initializer()->DeleteSubrange(i, 1);
    });
  }
  return changes;
}

// Networks of several operators as octet writes them, in float and on codes.
std::vector<NodeTest> whole_networks() {
  std::vector<NodeTest> tests;
  const auto add = [&](const std::string& name, const graph::Graph& g, const Tensor& x) {
    NodeTest& test = tests.emplace_back();
    test.name = name;
    if (!test.model.ParseFromString(io::to_onnx_bytes(g)))
      throw std::runtime_error(name + ": it is no model");
    test.inputs = {x};
  };
  const auto traced = [](auto&& model, const Tensor& x) {
    model->eval();
    return graph::trace(*model, {x})->to_graph();
  };
  const Tensor image = Tensor::randn({2, 3, 6, 6}, 1), rows = Tensor::randn({2, 6}, 1),
               steps = Tensor::randn({5, 2, 3}, 1);
  for (const uint64_t seed : {1, 4, 6}) {
    const graph::Graph g = random_net(seed, true, 5);
    add("network " + std::to_string(seed), g, image);
    auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
    prepared->forward({image});
    add("network on codes " + std::to_string(seed), quant::convert_fx(prepared)->graph(), image);
  }
  add("lstm", traced(nn::make<nn::LSTM>(3, 4), steps), steps);
  add("gru", traced(nn::make<nn::GRU>(3, 4), steps), steps);
  add("norm",
      traced(nn::make<nn::Sequential>(nn::make<nn::Linear>(6, 4), nn::make<nn::LayerNorm>(Shape{4}),
                                      nn::make<nn::Softmax>(1)),
             rows),
      rows);
  return tests;
}

void try_all(const std::vector<NodeTest>& tests, Changes (*changes_of)(const onnx::ModelProto&)) {
  Counts counts;
  for (const NodeTest& test : tests)
    for (const auto& [what, change] : changes_of(test.model)) {
      onnx::ModelProto changed = test.model;
      change(changed);
      try_model(changed, test.inputs, test.name + " " + what, counts);
      if (::testing::Test::HasFailure()) return;
    }
  fmt::print("{} models run, {} refused\n", counts.run, counts.refused);
  // The changes are not without effect, and not all of them are wrong.
  EXPECT_GT(counts.run, 200);
  EXPECT_GT(counts.refused, 200);
}

TEST(OnnxChangedNetworks, OtherAttributesAreRunOrRefused) {
  try_all(whole_networks(), changes_of_attributes);
}

TEST(OnnxChangedNetworks, OtherOperandsAreRunOrRefused) {
  try_all(whole_networks(), changes_of_nodes);
}

TEST(OnnxChangedNetworks, OtherTypesAndShapesAreRunOrRefused) {
  try_all(whole_networks(), [](const onnx::ModelProto& model) {
    Changes changes = changes_of_inputs(model);
    for (auto& change : changes_of_constants(model)) changes.push_back(std::move(change));
    return changes;
  });
}

TEST(DataOnnxChangedNodes, OtherAttributesAreRunOrRefused) {
  OCTET_NEED_DATA("onnx-node-tests");
  try_all(all_node_tests(), changes_of_attributes);
}

TEST(DataOnnxChangedNodes, OtherOperandsAreRunOrRefused) {
  OCTET_NEED_DATA("onnx-node-tests");
  try_all(all_node_tests(), changes_of_nodes);
}

TEST(DataOnnxChangedNodes, OtherTypesAndShapesAreRunOrRefused) {
  OCTET_NEED_DATA("onnx-node-tests");
  try_all(all_node_tests(), changes_of_inputs);
}

TEST(DataOnnxChangedNodes, InputsThatAreConstantsGiveTheSame) {
  OCTET_NEED_DATA("onnx-node-tests");
  int tried = 0;
  for (const NodeTest& test : all_node_tests()) {
    const std::string bytes = test.model.SerializeAsString();
    graph::Graph plain;
    try {
      plain = io::import_onnx_bytes(bytes, test.name);
    } catch (const Error&) {
      continue;  // DataOnnxNodes knows which
    }
    if (plain.inputs().size() != test.inputs.size()) continue;
    const std::vector<Tensor> want = run_graph(plain, test.inputs);
    for (size_t i = 0; i <= test.inputs.size(); ++i) {  // each, then all
      io::OnnxImportOptions options;
      std::vector<Tensor> left;
      for (size_t k = 0; k < test.inputs.size(); ++k)
        if (i == test.inputs.size() || k == i)
          options.constants[plain.value(plain.inputs()[k]).name] = test.inputs[k];
        else
          left.push_back(test.inputs[k]);
      const std::string what = test.name + ", constant " + std::to_string(i);
      try {
        const graph::Graph g = io::import_onnx_bytes(bytes, test.name, options);
        const std::vector<Tensor> got = run_graph(g, left);
        ASSERT_EQ(got.size(), want.size()) << what;
        for (size_t k = 0; k < want.size(); ++k) {
          ASSERT_EQ(to_string(got[k].shape()), to_string(want[k].shape())) << what;
          // Folded constants may be computed by operators that sum in another order, and what has
          // known scales in other steps: codes between two others may become either.
          const bool codes = got[k].is_quantized();
          EXPECT_TRUE(allclose(codes ? got[k].int_repr() : got[k],
                               want[k].is_quantized() ? want[k].int_repr() : want[k], 1e-5,
                               codes ? 1 : 1e-6))
              << what << "\n"
              << graph::print(g);
        }
        ++tried;
      } catch (const std::exception& e) {
        ADD_FAILURE() << what << ": " << e.what();
      }
    }
  }
  EXPECT_GT(tried, 500);
}

}  // namespace
}  // namespace octet::testing
