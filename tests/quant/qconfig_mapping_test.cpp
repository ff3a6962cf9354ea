// QConfigMapping: precedence as PyTorch's (tests/golden/qconfig_mapping.json), names that match
// nothing, JSON.
#include "octet/quant/backend/qconfig_mapping.h"

#include <gtest/gtest.h>

#include "octet/nn/nn.h"
#include "tests/expect_error.h"
#include "tests/golden.h"

namespace octet::quant {
namespace {

using nlohmann::json;
using testing::expect_error;
using Target = QConfigMapping::Target;

// The classes of scripts/oracle/qconfig_mapping.py.
struct Block : nn::Module {};
struct Outer : nn::Module {};
struct Model : nn::Module {};

ObjectType type_named(const std::string& name) {
  if (name == "Block") return typeid(Block);
  if (name == "Outer") return typeid(Outer);
  if (name == "Model") return typeid(Model);
  return name;
}

// The QConfig of an entry with this number; 0: none.
std::optional<QConfig> numbered(int n) {
  if (n == 0) return std::nullopt;
  return QConfig{ObserverFactory("MovingAverageMinMaxObserver").with_averaging_constant(n / 1024.0),
                 default_weight_observer()};
}

int number_of(const std::optional<QConfig>& q) {
  return q ? static_cast<int>(std::lround(q->activation.options().averaging_constant * 1024)) : 0;
}

Target target_of(const json& j) {
  Target t{.module_path = j["module_path"],
           .op = j["op"],
           .index = j["index"],
           .parent_path = j["parent_path"]};
  if (j["module_type"] != "") t.module_type = type_named(j["module_type"]).type();
  return t;
}

QConfigMapping mapping_of(const json& entries) {
  QConfigMapping m;
  m.set_global(numbered(entries["global"]));
  for (const json& e : entries["object_type"]) m.set_object_type(type_named(e[0]), numbered(e[1]));
  for (const json& e : entries["module_name_regex"]) m.set_module_name_regex(e[0], numbered(e[1]));
  for (const json& e : entries["module_name"]) m.set_module_name(e[0], numbered(e[1]));
  for (const json& e : entries["module_name_object_type_order"])
    m.set_module_name_object_type_order(e[0], type_named(e[1]), e[2], numbered(e[3]));
  return m;
}

TEST(GoldenQConfigMapping, EveryCallGetsTheEntryThatPyTorchGivesIt) {
  json golden = testing::load_golden("qconfig_mapping.json");
  std::vector<Target> targets;
  for (const json& t : golden[0]["targets"]) targets.push_back(target_of(t));
  ASSERT_GT(targets.size(), 20u);
  int named = 0;
  for (const json& c : golden) {
    if (!c.contains("entries")) continue;
    QConfigMapping mapping = mapping_of(c["entries"]);
    for (size_t i = 0; i < targets.size(); ++i) {
      EXPECT_EQ(number_of(mapping.find(targets[i])), c["answers"][i].get<int>())
          << c["entries"] << " at " << golden[0]["targets"][i];
      named += c["answers"][i] != c["entries"]["global"];
    }
  }
  EXPECT_GT(named, 500) << "the goldens exercise little but the global entry";
}

void expect_factory(const ObserverFactory& f, const json& golden, const std::string& who) {
  EXPECT_EQ(f.fake_quantize_name(), golden["fake_quantize"].get<std::string>()) << who;
  EXPECT_EQ(f.name(), golden["observer"].get<std::string>()) << who;
  if (!golden.contains("dtype")) return;
  EXPECT_EQ(octet::to_string(f.options().dtype), golden["dtype"].get<std::string>()) << who;
  EXPECT_EQ(to_string(f.options().qscheme), golden["qscheme"].get<std::string>()) << who;
  if (!golden.contains("scale")) {
    EXPECT_EQ(code_range(f.options()), (CodeRange{golden["quant_min"], golden["quant_max"]}))
        << who;
    return;
  }
  EXPECT_EQ(f.options().scale, golden["scale"].get<double>()) << who;
  EXPECT_EQ(f.options().zero_point, golden["zero_point"].get<int64_t>()) << who;
}

TEST(GoldenQConfigMapping, DefaultMappingsSayWhatPyTorchsDo) {
  json golden = testing::load_golden("qconfig_mapping.json");
  for (const json& c : golden) {
    if (!c.contains("backend")) continue;
    std::string backend = c["backend"], type = c["type"],
                who = backend + (c["qat"] ? " QAT " : " ") + type;
    QConfigMapping m =
        c["qat"] ? get_default_qat_qconfig_mapping(backend) : get_default_qconfig_mapping(backend);
    ObjectType object = type;
    Target t;
    if (object.is_module())
      t = {.module_path = "m", .module_type = object.type()};
    else
      t.op = object.op();
    auto found = m.find(t);
    ASSERT_TRUE(found) << who;
    expect_factory(found->activation, c["activation"], who);
    // What works around PyTorch's kernels is left out (qconfig_mapping.h).
    bool transposed =
        type.find("ranspose") != std::string::npos && (backend == "fbgemm" || backend == "x86");
    if (transposed || c["weight"]["observer"] == "PlaceholderObserver") {
      EXPECT_EQ(found->weight, m.global_qconfig()->weight) << who;
    } else {
      expect_factory(found->weight, c["weight"], who);
    }
  }
}

TEST(QConfigMapping, ASingleQConfigIsForEverything) {
  QConfigMapping m = get_default_qconfig("fbgemm");
  EXPECT_EQ(m.find({.module_path = "a.b", .module_type = typeid(nn::Linear)}),
            get_default_qconfig("fbgemm"));
  EXPECT_EQ(m, QConfigMapping().set_global(get_default_qconfig("fbgemm")));
  EXPECT_EQ(QConfigMapping().find({.op = "add"}), std::nullopt);
}

TEST(QConfigMapping, ASetterReplacesWhatWasSetForTheSameKeyInItsPlace) {
  QConfigMapping m;
  m.set_module_name_regex("a", numbered(1))
      .set_module_name_regex("a.b", numbered(2))
      .set_module_name_regex("a", numbered(3));
  m.set_object_type<nn::Linear>(numbered(4)).set_object_type("octet::nn::Linear", numbered(5));
  EXPECT_EQ(number_of(m.find({.module_path = "a.b", .module_type = typeid(nn::Linear)})), 3);
  EXPECT_EQ(m.module_name_regex_qconfigs().size(), 2u);
  EXPECT_EQ(number_of(m.find({.module_path = "c", .module_type = typeid(nn::Linear)})), 5);
}

std::vector<Target> small_model() {
  return {{.module_path = "backbone.conv1",
           .module_type = typeid(nn::Conv2d),
           .parent_path = "backbone"},
          {.module_path = "backbone.conv2",
           .module_type = typeid(nn::Conv2d),
           .index = 1,
           .parent_path = "backbone"},
          {.module_path = "backbone", .op = "add"},
          {.module_path = "head", .module_type = typeid(nn::Linear)}};
}

TEST(QConfigMapping, NamesThatMatchNothingAreErrorsWithTheNearest) {
  auto none = std::nullopt;
  QConfigMapping good;
  good.set_module_name("backbone", none)
      .set_module_name("backbone.conv1", none)
      .set_module_name_regex("back.*1$", none);
  good.set_module_name_object_type_order("backbone", typeid(nn::Conv2d), 1, none)
      .set_module_name_object_type_order("", typeid(nn::Linear), 0, none);
  good.set_object_type<nn::LSTM>(none);  // a mapping may name more than a model has
  EXPECT_EQ(good.unmatched(small_model()), std::vector<std::string>{});
  good.require_matched(small_model());

  struct Case {
    QConfigMapping mapping;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases = {
      {QConfigMapping().set_module_name("bakbone", none),
       {"module_name 'bakbone'", "did you mean 'backbone'"}},
      {QConfigMapping().set_module_name("backbone.conv", none),
       {"module_name 'backbone.conv'", "'backbone.conv1'"}},
      {QConfigMapping().set_module_name_regex("conv", none), {"module_name_regex 'conv'"}},
      {QConfigMapping().set_module_name_object_type_order("backbone", "add", 1, none),
       {"('backbone', add, 1)", "it makes 1 such call"}},
      {QConfigMapping().set_module_name_object_type_order("bakbone", typeid(nn::Conv2d), 0, none),
       {"Conv2d", "did you mean 'backbone'"}},
      {QConfigMapping()
           .set_module_name("x", none)
           .set_module_name("head", none)
           .set_module_name("y", none),
       {"module_name 'x'; nor module_name 'y'"}},
  };
  for (const Case& c : cases)
    expect_error(ErrorCode::not_found, c.parts, [&] { c.mapping.require_matched(small_model()); });
}

TEST(QConfigMapping, WrongKeysAreErrorsWhenTheyAreSet) {
  QConfigMapping m;
  expect_error(ErrorCode::not_found, {"'ad'", "did you mean 'add'"},
               [&] { m.set_object_type("ad", std::nullopt); });
  expect_error(ErrorCode::not_found, {"'Liner'", "'Linear'"},
               [&] { m.set_object_type("Liner", std::nullopt); });
  expect_error(ErrorCode::invalid_argument, {"'('", "not a regular expression"},
               [&] { m.set_module_name_regex("(", std::nullopt); });
  expect_error(ErrorCode::invalid_argument, {"set_global"},
               [&] { m.set_module_name("", std::nullopt); });
  expect_error(ErrorCode::invalid_argument, {"-1", "from 0"},
               [&] { m.set_module_name_object_type_order("", "add", -1, std::nullopt); });
  expect_error(ErrorCode::not_found, {"'qnpack'", "did you mean 'qnnpack'"},
               [] { get_default_qconfig_mapping("qnpack"); });
  expect_error(ErrorCode::not_found, {"'qnpack'"},
               [] { get_default_qat_qconfig_mapping("qnpack"); });
}

TEST(QConfigMapping, BothSpellingsAreEqual) {
  QConfigMapping built;
  built.set_global(get_default_qconfig("fbgemm"))
      .set_object_type<nn::Linear>(std::nullopt)
      .set_object_type("add", default_dynamic_qconfig());
  built.set_module_name_regex("layer.*", default_qconfig())
      .set_module_name("layer1.0", std::nullopt);
  built.set_module_name_object_type_order("layer1", typeid(nn::Conv2d), 2,
                                          QConfig{ObserverFactory("MinMaxObserver"), {}});
  QConfigMapping read = QConfigMapping::from_json(R"({
    "": "fbgemm",
    "object_type": [["add", "default_dynamic_qconfig"], ["Linear", null]],
    "module_name_regex": [["layer.*", "default_qconfig"]],
    "module_name": [["layer1.0", null]],
    "module_name_object_type_order":
         [["layer1", "nn::Conv2d", 2, {"activation.observer": "MinMaxObserver"}]]})");
  EXPECT_EQ(read, built);
  EXPECT_NE(read, QConfigMapping(built).set_module_name("layer1.0", default_qconfig()));
  EXPECT_NE(read, QConfigMapping(built).set_module_name("layer2", std::nullopt));
  EXPECT_NE(QConfigMapping()
                .set_module_name_regex("a", numbered(1))
                .set_module_name_regex("b", numbered(2)),
            QConfigMapping()
                .set_module_name_regex("b", numbered(2))
                .set_module_name_regex("a", numbered(1)))
      << "the order of expressions counts";
}

TEST(QConfigMapping, JsonComesBackEqual) {
  QConfigMapping everything;
  for (const std::string& name : qconfig_names())
    everything.set_module_name(name, get_default_qconfig(name));
  everything.set_module_name(
      "learned",
      QConfig{default_fake_quant().fake_quantize("LearnableFakeQuantize").with_grad_scaling(true),
              {}});
  everything.set_module_name(
      "eps",
      QConfig{ObserverFactory("HistogramObserver").with_eps(1.0 / 3).with_percentile(100), {}});
  everything.set_module_name("empty", QConfig{})
      .set_module_name_regex("\"quoted\\\\.*", std::nullopt);
  for (const QConfigMapping& m : {QConfigMapping(), everything, get_default_qconfig_mapping(),
                                  get_default_qat_qconfig_mapping("x86", 0)}) {
    QConfigMapping back = QConfigMapping::from_json(m.to_json());
    EXPECT_EQ(back, m);
    EXPECT_EQ(back.to_json(), m.to_json());
  }
  expect_error(ErrorCode::unsupported, {"Block", "OCTET_MODULE"},
               [] { QConfigMapping().set_object_type<Block>(std::nullopt).to_json(); });
}

TEST(QConfigMapping, DamagedJsonIsAnErrorThatSaysWhere) {
  struct Case {
    const char* text;
    ErrorCode code;
    std::vector<std::string> parts;
  };
  const auto wrong = ErrorCode::invalid_argument, unknown = ErrorCode::not_found;
  const std::vector<Case> cases = {
      {"{", wrong, {"not valid JSON"}},
      {"[]", wrong, {"expected an object"}},
      {R"({"module_names": []})", unknown, {"'module_names'", "did you mean 'module_name'"}},
      {R"({"": "fbgem"})", unknown, {"'fbgem'", "did you mean 'fbgemm'"}},
      {R"({"": 1})", wrong, {"expected the name of a qconfig"}},
      {R"({"module_name": {}})", wrong, {"'module_name'", "expected a list"}},
      {R"({"module_name": [["a"]]})", wrong, {"module_name[0]", "a name and a qconfig"}},
      {R"({"module_name": [["a", null], [1, null]]})", wrong, {"module_name[1]", "expected text"}},
      {R"({"object_type": [["ad", null]]})", unknown, {"'ad'", "'add'"}},
      {R"({"module_name": [["a", {"activation": 1}]]})", wrong, {"module_name[0]", "'activation'"}},
      {R"({"module_name":
           [["a", {"activation.observer": "MinMaxObserver", "activation.bin": 1}]]})",
       wrong,
       {"'bin'", "did you mean 'bins'"}},
      {R"({"module_name": [["a", {"activation.observer": []}]]})",
       wrong,
       {"module_name[0]", "expected text"}},
      {R"({"module_name_object_type_order": [["a", "add", 0.5, null]]})",
       wrong,
       {"order[0]", "expected an integer"}},
  };
  for (const Case& c : cases)
    expect_error(c.code, c.parts, [&] { QConfigMapping::from_json(c.text); });
}

}  // namespace
}  // namespace octet::quant
