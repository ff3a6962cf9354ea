// Normalizations.
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// With the batch's own mean and variance; outputs 1 and 2 are the running ones moved towards them.
void import_training_batch_norm(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  const double momentum = n.get_float("momentum", 0.9f);
  std::vector<int64_t> dims;
  for (int64_t d = 0; d < x->rank(); ++d)
    if (d != 1) dims.push_back(d);
  const Attrs over{{"dim", dims}, {"keepdim", true}};
  ValPtr mean = im.call(n, "mean", {x}, over), centered = im.call(n, "sub", {x, mean});
  ValPtr variance = im.call(n, "mean", {im.call(n, "mul", {centered, centered})}, over);
  ValPtr deviation = im.call(
      n, "sqrt", {im.call(n, "add", {variance, im.scalar(n, n.get_float("epsilon", 1e-5f))})});
  const auto per_channel = [&](ValPtr v) {
    for (int64_t d = 2; d < x->rank(); ++d) v = im.call(n, "unsqueeze", {v}, {{"dim", int64_t{1}}});
    return v;
  };
  ValPtr y =
      im.call(n, "mul", {im.call(n, "div", {centered, deviation}), per_channel(im.in(n, 1))});
  im.out(n, 0, im.call(n, "add", {y, per_channel(im.in(n, 2))}));
  for (size_t i : {1, 2}) {
    if (!im.wants_output(n, i)) continue;
    ValPtr own =
        im.call(n, "reshape", {i == 1 ? mean : variance}, {{"shape", std::vector<int64_t>{-1}}});
    ValPtr before = im.call(n, "mul", {im.in(n, i + 2), im.scalar(n, momentum)});
    own = im.call(n, "mul", {own, im.scalar(n, 1 - momentum)});
    im.out(n, i, im.call(n, "add", {before, own}));
  }
}

void import_batch_norm(Importer& im, const NodeView& n) {
  if (n.opset() >= 14 && n.get_int("training_mode", 0) != 0)
    return import_training_batch_norm(im, n);
  n.ignore({"momentum", "is_test", "consumed_inputs", "training_mode"});
  if (n.get_int("spatial", 1) != 1) n.unsupported("spatial=0");
  for (size_t i = 1; i < 5; ++i)
    if (im.wants_output(n, i)) n.unsupported("training outputs");
  std::vector<ValPtr> operands;
  for (size_t i = 0; i < 5; ++i) operands.push_back(im.in(n, i));
  im.out(n, 0, im.call(n, "batch_norm", operands, {{"eps", n.get_float("epsilon", 1e-5f)}}));
}

void import_instance_norm(Importer& im, const NodeView& n) {
  n.ignore({"consumed_inputs"});
  im.out(n, 0,
         im.call(n, "instance_norm", {im.in(n, 0), im.in(n, 1), im.in(n, 2)},
                 {{"eps", n.get_float("epsilon", 1e-5f)}}));
}

void import_layer_norm(Importer& im, const NodeView& n) {
  n.ignore({"stash_type"});  // the precision of the statistics: float32 always
  ValPtr x = im.in(n, 0);
  int64_t axis = axis_of(n, n.get_int("axis", -1), x->rank());
  double eps = n.get_float("epsilon", 1e-5f);
  im.out(n, 0,
         im.call(n, "layer_norm", {x, im.in(n, 1), im.optional_in(n, 2)},
                 {{"axis", axis}, {"eps", eps}}));
  if (!im.wants_output(n, 1) && !im.wants_output(n, 2)) return;
  std::vector<int64_t> dims;
  for (int64_t d = axis; d < x->rank(); ++d) dims.push_back(d);
  const Attrs over{{"dim", dims}, {"keepdim", true}};
  ValPtr mean = im.call(n, "mean", {x}, over);
  im.out(n, 1, mean);
  if (!im.wants_output(n, 2)) return;
  ValPtr centered = im.call(n, "sub", {x, mean});
  ValPtr variance = im.call(n, "mean", {im.call(n, "mul", {centered, centered})}, over);
  im.out(n, 2, im.call(n, "rsqrt", {im.call(n, "add", {variance, im.scalar(n, eps)})}));
}

// scale and bias per channel; before opset 21 per group.
void import_group_norm(Importer& im, const NodeView& n) {
  n.ignore({"stash_type"});
  ValPtr x = im.in(n, 0);
  const int64_t groups = n.get_int("num_groups", 0);
  if (groups < 1 || x->rank() < 2)
    n.fail(ErrorCode::corrupt, "num_groups={} for {}", groups, to_string(x->type));
  std::vector<ValPtr> operands{x};
  for (size_t i : {1, 2}) {
    ValPtr v = im.in(n, i);
    if (n.opset() < 21) {
      const int64_t channels = known_dim(n, *x, 1, "GroupNormalization");
      if (v->dims() != std::vector<Dim>{groups} || channels % groups != 0)
        n.fail(ErrorCode::corrupt, "{} for {} groups of {} channels", to_string(v->type), groups,
               channels);
      v = im.call(n, "unsqueeze", {v}, {{"dim", int64_t{1}}});
      v = im.call(n, "expand", {v}, {{"shape", std::vector<int64_t>{groups, channels / groups}}});
      v = im.call(n, "reshape", {v}, {{"shape", std::vector<int64_t>{channels}}});
    }
    operands.push_back(v);
  }
  im.out(n, 0,
         im.call(n, "group_norm", operands,
                 {{"groups", groups}, {"eps", n.get_float("epsilon", 1e-5f)}}));
}

// (x - mean) / (standard deviation + 1e-9) over `axes`.
void import_mean_variance(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  std::vector<int64_t> dims = n.get_ints("axes", {0, 2, 3});
  for (int64_t& d : dims) d = axis_of(n, d, x->rank());
  const Attrs over{{"dim", dims}, {"keepdim", true}};
  ValPtr centered = im.call(n, "sub", {x, im.call(n, "mean", {x}, over)});
  ValPtr deviation =
      im.call(n, "sqrt", {im.call(n, "mean", {im.call(n, "mul", {centered, centered})}, over)});
  im.out(n, 0, im.call(n, "div", {centered, im.call(n, "add", {deviation, im.scalar(n, 1e-9)})}));
}

}  // namespace

void add_normalizations(Handlers& h) {
  h["BatchNormalization"] = import_batch_norm;
  h["InstanceNormalization"] = import_instance_norm;
  h["GroupNormalization"] = import_group_norm;
  h["LayerNormalization"] = import_layer_norm;
  h["MeanVarianceNormalization"] = import_mean_variance;
}

}  // namespace octet::io::onnx_impl
