#include "tests/quant/fx_models.h"

#include <string>

namespace octet::testing::fx_models {

// -- layers and what fuses with them --------------------------------------------------------------

struct ConvAlone : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  Tensor forward(Tensor x) override { return conv(x); }
};

struct LinearAlone : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(5, 4));
  Tensor forward(Tensor x) override { return fc(x); }
};

struct ConvRelu : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(conv(x)); }
};

struct ConvReluFunctional : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  Tensor forward(Tensor x) override { return F::relu(conv(x)); }
};

struct ConvBn : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4));
  Tensor forward(Tensor x) override { return bn(conv(x)); }
};

struct ConvBnRelu : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(bn(conv(x))); }
};

struct LinearRelu : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(5, 4));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(fc(x)); }
};

struct LinearBn : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(5, 4));
  nn::Slot bn = slot("bn", nn::BatchNorm1d(4));
  Tensor forward(Tensor x) override { return bn(fc(x)); }
};

struct BnRelu : nn::Module {
  nn::Slot bn = slot("bn", nn::BatchNorm2d(3));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(bn(x)); }
};

struct BnAlone : nn::Module {
  nn::Slot bn = slot("bn", nn::BatchNorm2d(3));
  Tensor forward(Tensor x) override { return bn(x); }
};

struct Conv1dBnRelu : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv1d(3, 4, 3));
  nn::Slot bn = slot("bn", nn::BatchNorm1d(4));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(bn(conv(x))); }
};

struct Conv3dRelu : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv3d(2, 3, 2));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(conv(x)); }
};

struct ConvTransposed : nn::Module {
  nn::Slot up = slot("up", nn::ConvTranspose2d(3, 4, 2, {.stride = 2}));
  nn::Slot conv = slot("conv", nn::Conv2d(4, 2, 1));
  Tensor forward(Tensor x) override { return conv(up(x)); }
};

struct ConvTransposedBn : nn::Module {
  nn::Slot up = slot("up", nn::ConvTranspose2d(3, 4, 2));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4));
  Tensor forward(Tensor x) override { return bn(up(x)); }
};

struct FunctionalLinear : nn::Module {
  nn::Parameter w1 = parameter("w1", Tensor::randn({6, 5}, 1));
  nn::Parameter b1 = parameter("b1", Tensor::randn({6}, 2));
  nn::Parameter w2 = parameter("w2", Tensor::randn({4, 6}, 3));
  Tensor forward(Tensor x) override { return F::linear(F::relu(F::linear(x, w1, b1)), w2); }
};

struct FunctionalConv : nn::Module {
  nn::Parameter w = parameter("w", Tensor::randn({4, 3, 3, 3}, 1));
  nn::Parameter b = parameter("b", Tensor::randn({4}, 2));
  Tensor forward(Tensor x) override { return F::conv2d(x, w, b); }
};

// -- operations between tensors -------------------------------------------------------------------

// A module of two inputs and one result.
struct Binary : nn::Module {
  using nn::Module::forward;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return {of(inputs.at(0), inputs.at(1))};
  }
  virtual Tensor of(const Tensor& x, const Tensor& y) = 0;
};

struct Add : Binary {
  Tensor of(const Tensor& x, const Tensor& y) override { return x + y; }
};

struct AddRelu : Binary {
  Tensor of(const Tensor& x, const Tensor& y) override { return F::relu(x + y); }
};

struct Mul : Binary {
  Tensor of(const Tensor& x, const Tensor& y) override { return x * y; }
};

struct MulRelu : Binary {
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor of(const Tensor& x, const Tensor& y) override { return relu(x * y); }
};

struct Cat : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
  Tensor forward(Tensor x) override { return F::cat({conv(x), x}, 1); }
};

struct CatOfConvs : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 4, 1));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(3, 2, 1));
  nn::Slot conv3 = slot("conv3", nn::Conv2d(6, 2, 1));
  Tensor forward(Tensor x) override {
    Tensor a = conv1(x);
    return conv3(F::cat({a, conv2(x)}, 1));
  }
};

struct Block : nn::Module {
  explicit Block(int64_t channels)
      : conv1(slot("conv1", nn::Conv2d(channels, channels, 3, {.padding = 1}))),
        bn1(slot("bn1", nn::BatchNorm2d(channels))),
        relu(slot("relu", nn::ReLU())),
        conv2(slot("conv2", nn::Conv2d(channels, channels, 3, {.padding = 1}))),
        bn2(slot("bn2", nn::BatchNorm2d(channels))) {}
  nn::Slot conv1, bn1, relu, conv2, bn2;
  Tensor forward(Tensor x) override { return F::relu(bn2(conv2(relu(bn1(conv1(x))))) + x); }
};

struct Residual : nn::Module {
  nn::Slot block1 = slot("block1", Block(3));
  nn::Slot block2 = slot("block2", Block(3));
  Tensor forward(Tensor x) override { return block2(block1(x)); }
};

struct ScalarAdd : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  Tensor forward(Tensor x) override { return conv(x) + 2; }
};

struct ScalarMul : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  Tensor forward(Tensor x) override { return conv(x) * 0.5; }
};

struct ScalarAddRelu : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  Tensor forward(Tensor x) override { return F::relu(conv(x) + 2); }
};

struct Matmul : Binary {
  Tensor of(const Tensor& x, const Tensor& y) override { return F::matmul(x, y); }
};

struct Bmm : nn::Module {
  nn::Slot q = slot("q", nn::Linear(4, 4));
  nn::Slot k = slot("k", nn::Linear(4, 4));
  Tensor forward(Tensor x) override {
    Tensor a = q(x);
    return F::matmul(a, k(x).transpose(1, 2));
  }
};

// -- pools, shapes, activations, norms ------------------------------------------------------------

struct Pools : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
  nn::Slot max_pool = slot("max_pool", nn::MaxPool2d(2));
  nn::Slot avg_pool = slot("avg_pool", nn::AvgPool2d(3));
  Tensor forward(Tensor x) override { return avg_pool(max_pool(conv(x))); }
};

struct PoolsFunctional : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
  Tensor forward(Tensor x) override { return F::avg_pool2d(F::max_pool2d(conv(x), 2), 3); }
};

struct AdaptivePool : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot pool = slot("pool", nn::AdaptiveAvgPool2d(1));
  nn::Slot fc = slot("fc", nn::Linear(4, 2));
  Tensor forward(Tensor x) override { return fc(F::flatten(pool(conv(x)), 1)); }
};

struct PoolOfInput : nn::Module {
  nn::Slot pool = slot("pool", nn::MaxPool2d(2));
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  Tensor forward(Tensor x) override { return conv(pool(x)); }
};

struct Mean : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot fc = slot("fc", nn::Linear(4, 2));
  Tensor forward(Tensor x) override { return fc(F::mean(conv(x), {2, 3})); }
};

struct Reshape : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot fc = slot("fc", nn::Linear(64, 2));
  Tensor forward(Tensor x) override {
    x = conv(x);
    return fc(x.reshape({x.size(0), -1}));
  }
};

struct Flatten : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot flatten = slot("flatten", nn::Flatten());
  nn::Slot fc = slot("fc", nn::Linear(64, 2));
  Tensor forward(Tensor x) override { return fc(flatten(conv(x))); }
};

struct Transposes : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 6));
  nn::Slot fc2 = slot("fc2", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return fc2(fc1(x).transpose(1, 2)).permute({0, 2, 1}); }
};

struct Slice : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 4, 1));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(2, 3, 1));
  Tensor forward(Tensor x) override { return conv2(conv1(x).slice(1, 0, 2)); }
};

struct Chunk : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 4, 1));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(2, 3, 1));
  Tensor forward(Tensor x) override {
    std::vector<Tensor> parts = F::chunk(conv1(x), 2, 1);
    Tensor a = conv2(parts[0]);
    return a + conv2(parts[1]);
  }
};

struct Squeezes : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 6));
  nn::Slot fc2 = slot("fc2", nn::Linear(6, 3));
  Tensor forward(Tensor x) override { return fc2(fc1(x).unsqueeze(1)).squeeze(1); }
};

struct Activations : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(5, 4));
  nn::Slot hardswish = slot("hardswish", nn::Hardswish());
  nn::Slot elu = slot("elu", nn::ELU());
  nn::Slot leaky = slot("leaky", nn::LeakyReLU(0.1));
  Tensor forward(Tensor x) override { return leaky(elu(hardswish(fc(x)))); }
};

struct ActivationsFunctional : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(5, 4));
  Tensor forward(Tensor x) override { return F::leaky_relu(F::elu(F::hardswish(fc(x)))); }
};

struct PRelu : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot prelu = slot("prelu", nn::PReLU());
  Tensor forward(Tensor x) override { return prelu(conv(x)); }
};

struct Clamps : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot relu6 = slot("relu6", nn::ReLU6());
  nn::Slot hardtanh = slot("hardtanh", nn::Hardtanh());
  Tensor forward(Tensor x) override { return hardtanh(relu6(conv(x))); }
};

struct FixedRanges : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(5, 4));
  nn::Slot sigmoid = slot("sigmoid", nn::Sigmoid());
  nn::Slot tanh = slot("tanh", nn::Tanh());
  nn::Slot softmax = slot("softmax", nn::Softmax(-1));
  Tensor forward(Tensor x) override { return softmax(tanh(sigmoid(fc(x)))); }
};

struct FixedRangesFunctional : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 4));
  nn::Slot fc2 = slot("fc2", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return F::tanh(fc2(F::sigmoid(fc1(x)))); }
};

struct LayerNorm : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 4));
  nn::Slot norm = slot("norm", nn::LayerNorm(4));
  nn::Slot fc2 = slot("fc2", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return fc2(norm(fc1(x))); }
};

struct GroupNorm : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot norm = slot("norm", nn::GroupNorm(2, 4));
  Tensor forward(Tensor x) override { return norm(conv(x)); }
};

struct InstanceNorm : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot norm = slot("norm", nn::InstanceNorm2d(4));
  Tensor forward(Tensor x) override { return norm(conv(x)); }
};

struct Dropout : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 4));
  nn::Slot dropout = slot("dropout", nn::Dropout(0.5));
  nn::Slot fc2 = slot("fc2", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return fc2(dropout(fc1(x))); }
};

struct Interpolate : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 4, 1));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(4, 2, 1));
  Tensor forward(Tensor x) override {
    return conv2(F::interpolate(conv1(x), {.scale_factor = {2.0}}));
  }
};

struct FloatInTheMiddle : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 4));
  nn::Slot fc2 = slot("fc2", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return fc2(F::exp(fc1(x))); }
};

// -- dynamic and weight-only ----------------------------------------------------------------------

struct EmbeddingNet : nn::Module {
  nn::Slot embedding = slot("embedding", nn::Embedding(10, 12));
  nn::Slot fc = slot("fc", nn::Linear(12, 3));
  Tensor forward(Tensor x) override { return fc(embedding(x)); }
};

struct EmbeddingBagNet : nn::Module {
  nn::Slot bag = slot("bag", nn::EmbeddingBag(10, 12, {.mode = "sum"}));
  nn::Slot fc = slot("fc", nn::Linear(12, 3));
  Tensor forward(Tensor x) override { return fc(bag(x)); }
};

struct DynamicLinear : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 6));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot fc2 = slot("fc2", nn::Linear(6, 3));
  Tensor forward(Tensor x) override { return fc2(relu(fc1(x))); }
};

struct DynamicFunctional : nn::Module {
  nn::Parameter w = parameter("w", Tensor::randn({6, 5}, 1));
  nn::Parameter b = parameter("b", Tensor::randn({6}, 2));
  Tensor forward(Tensor x) override { return F::linear(x, w, b); }
};

struct DynamicLstm : nn::Module {
  using nn::Module::forward;
  nn::Slot lstm = slot("lstm", nn::LSTM(5, 6));
  nn::Slot fc = slot("fc", nn::Linear(6, 3));
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    std::vector<Tensor> results = lstm(inputs);
    return {fc(results.at(0)), results.at(2)};
  }
};

struct ThreeLayers : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 6));
  nn::Slot fc2 = slot("fc2", nn::Linear(6, 4));
  nn::Slot fc3 = slot("fc3", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return fc3(fc2(fc1(x))); }
};

struct DynamicAndStatic : ThreeLayers {};

// -- which parts ----------------------------------------------------------------------------------

struct OnlyByName : ThreeLayers {};

struct OnlyByType : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot fc = slot("fc", nn::Linear(64, 2));
  Tensor forward(Tensor x) override { return fc(F::flatten(conv(x), 1)); }
};

struct NoneInTheMiddle : ThreeLayers {};
struct NoneByType : OnlyByType {};

struct NoneByOperator : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 4));
  nn::Slot fc2 = slot("fc2", nn::Linear(5, 4));
  nn::Slot fc3 = slot("fc3", nn::Linear(4, 3));
  Tensor forward(Tensor x) override {
    Tensor a = fc1(x);
    return fc3(a + fc2(x));
  }
};

struct OnlyByRegex : ThreeLayers {};

struct NameTypeOrder : nn::Module {
  nn::Parameter w1 = parameter("w1", Tensor::randn({5, 5}, 1));
  nn::Parameter w2 = parameter("w2", Tensor::randn({4, 5}, 2));
  Tensor forward(Tensor x) override { return F::linear(F::linear(x, w1), w2); }
};

struct Precedence : ThreeLayers {};

struct PerChannel : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot fc = slot("fc", nn::Linear(4, 2));
  Tensor forward(Tensor x) override { return fc(F::mean(F::relu(conv(x)), {2, 3})); }
};

// -- inputs, results, structure -------------------------------------------------------------------

struct TwoInputs : Binary {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 3));
  nn::Slot fc2 = slot("fc2", nn::Linear(6, 3));
  Tensor of(const Tensor& x, const Tensor& y) override {
    Tensor a = fc1(x);
    return a + fc2(y);
  }
};

struct TwoOutputs : nn::Module {
  using nn::Module::forward;
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 6));
  nn::Slot fc2 = slot("fc2", nn::Linear(6, 3));
  nn::Slot fc3 = slot("fc3", nn::Linear(6, 2));
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    Tensor x = fc1(inputs.at(0));
    return {fc2(x), fc3(x)};
  }
};

struct SharedModule : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(5, 5));
  Tensor forward(Tensor x) override { return fc(fc(x)); }
};

struct SharedModuleOneRelu : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(5, 5));
  Tensor forward(Tensor x) override { return fc(F::relu(fc(x))); }
};

struct SharedValue : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 4, 1));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(3, 4, 1));
  Tensor forward(Tensor x) override {
    Tensor a = conv1(x);
    return a + conv2(x);
  }
};

struct InputQuantized : LinearAlone {};
struct OutputQuantized : LinearAlone {};

struct BothQuantized : Binary {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 3, 1));
  Tensor of(const Tensor& x, const Tensor& y) override { return F::relu(conv(x) + y); }
};

struct Preserved : LinearAlone {
  nn::Slot extra = slot("extra", nn::Linear(2, 2));
};

struct AroundDependsOnData : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 4));
  nn::Slot middle = slot("middle", DependsOnData());
  nn::Slot fc2 = slot("fc2", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return fc2(middle(fc1(x))); }
};
struct NonTraceableName : AroundDependsOnData {};
struct NonTraceableClass : AroundDependsOnData {};

struct Inner : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(4, 4));
  Tensor forward(Tensor x) override { return F::relu(fc(x)); }
};

struct Standalone : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 4));
  nn::Slot inner = slot("inner", Inner());
  nn::Slot fc2 = slot("fc2", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return fc2(inner(fc1(x))); }
};
struct StandaloneQuantized : Standalone {};

struct Custom : nn::Module {
  nn::Slot linear = slot("linear", nn::Linear(3, 3));
  nn::Slot custom = slot("custom", CustomModule());
  Tensor forward(Tensor x) override { return custom(linear(x)); }
};

struct CustomInTheMiddle : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(3, 3));
  nn::Slot custom = slot("custom", CustomModule());
  nn::Slot fc2 = slot("fc2", nn::Linear(3, 2));
  Tensor forward(Tensor x) override { return fc2(custom(fc1(x))); }
};

struct NestedSequential : nn::Module {
  nn::Slot features =
      slot("features",
           nn::Sequential(nn::Sequential(nn::Conv2d(3, 4, 3), nn::BatchNorm2d(4), nn::ReLU()),
                          nn::MaxPool2d(2), nn::Sequential(nn::Conv2d(4, 5, 2), nn::ReLU())));
  nn::Slot head = slot("head", nn::Sequential(nn::Flatten(), nn::Linear(5, 3)));
  Tensor forward(Tensor x) override { return head(features(x)); }
};

struct UnusedBranch : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(5, 4));
  nn::Slot fc2 = slot("fc2", nn::Linear(5, 3));
  Tensor forward(Tensor x) override {
    Tensor unused = fc2(x);
    return fc1(x);
  }
};

struct Nothing : nn::Module {
  Tensor forward(Tensor x) override { return F::exp(x); }
};

// -- training -------------------------------------------------------------------------------------

struct QatConvAlone : ConvAlone {};
struct QatConvRelu : ConvRelu {};
struct QatConvBn : ConvBn {};
struct QatConvBnRelu : ConvBnRelu {};
struct QatLinearRelu : LinearRelu {};
struct QatLinearBn : LinearBn {};
struct QatResidual : Residual {};
struct QatFixedRanges : FixedRanges {};
struct QatFunctional : FunctionalLinear {};

const std::vector<Maker>& makers() {
  static const std::vector<Maker> all = {
#define MODEL(M)                                        \
  {                                                     \
#M, []() -> nn::ModulePtr { return nn::make<M>(); } \
  }
      MODEL(ConvAlone),
      MODEL(LinearAlone),
      MODEL(ConvRelu),
      MODEL(ConvReluFunctional),
      MODEL(ConvBn),
      MODEL(ConvBnRelu),
      MODEL(LinearRelu),
      MODEL(LinearBn),
      MODEL(BnRelu),
      MODEL(BnAlone),
      MODEL(Conv1dBnRelu),
      MODEL(Conv3dRelu),
      MODEL(ConvTransposed),
      MODEL(ConvTransposedBn),
      MODEL(FunctionalLinear),
      MODEL(FunctionalConv),
      MODEL(Add),
      MODEL(AddRelu),
      MODEL(Mul),
      MODEL(MulRelu),
      MODEL(Cat),
      MODEL(CatOfConvs),
      MODEL(Residual),
      MODEL(ScalarAdd),
      MODEL(ScalarMul),
      MODEL(ScalarAddRelu),
      MODEL(Matmul),
      MODEL(Bmm),
      MODEL(Pools),
      MODEL(PoolsFunctional),
      MODEL(AdaptivePool),
      MODEL(PoolOfInput),
      MODEL(Mean),
      MODEL(Reshape),
      MODEL(Flatten),
      MODEL(Transposes),
      MODEL(Slice),
      MODEL(Chunk),
      MODEL(Squeezes),
      MODEL(Activations),
      MODEL(ActivationsFunctional),
      MODEL(PRelu),
      MODEL(Clamps),
      MODEL(FixedRanges),
      MODEL(FixedRangesFunctional),
      MODEL(LayerNorm),
      MODEL(GroupNorm),
      MODEL(InstanceNorm),
      MODEL(Dropout),
      MODEL(Interpolate),
      MODEL(FloatInTheMiddle),
      MODEL(EmbeddingNet),
      MODEL(EmbeddingBagNet),
      MODEL(DynamicLinear),
      MODEL(DynamicFunctional),
      MODEL(DynamicLstm),
      MODEL(DynamicAndStatic),
      MODEL(OnlyByName),
      MODEL(OnlyByType),
      MODEL(NoneInTheMiddle),
      MODEL(NoneByType),
      MODEL(NoneByOperator),
      MODEL(OnlyByRegex),
      MODEL(NameTypeOrder),
      MODEL(Precedence),
      MODEL(PerChannel),
      MODEL(TwoInputs),
      MODEL(TwoOutputs),
      MODEL(SharedModule),
      MODEL(SharedModuleOneRelu),
      MODEL(SharedValue),
      MODEL(InputQuantized),
      MODEL(OutputQuantized),
      MODEL(BothQuantized),
      MODEL(Preserved),
      MODEL(NonTraceableName),
      MODEL(NonTraceableClass),
      MODEL(Standalone),
      MODEL(StandaloneQuantized),
      MODEL(Custom),
      MODEL(CustomInTheMiddle),
      MODEL(NestedSequential),
      MODEL(UnusedBranch),
      MODEL(Nothing),
      MODEL(QatConvAlone),
      MODEL(QatConvRelu),
      MODEL(QatConvBn),
      MODEL(QatConvBnRelu),
      MODEL(QatLinearRelu),
      MODEL(QatLinearBn),
      MODEL(QatResidual),
      MODEL(QatFixedRanges),
      MODEL(QatFunctional)};
#undef MODEL
  return all;
}

}  // namespace octet::testing::fx_models
