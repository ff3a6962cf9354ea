// Optimizers and learning-rate schedules.
#include <limits>
#include <map>
#include <memory>
#include <string>

#include "octet/autograd/autograd.h"
#include "octet/base/error.h"
#include "octet/nn/optim.h"
#include "python/bindings.h"

namespace octet::python {
namespace {

using namespace nn::optim;

std::map<std::string, Tensor> state_of(const py::dict& values) {
  std::map<std::string, Tensor> all;
  for (const auto& [name, value] : values)
    all[name.cast<std::string>()] = tensor_of(py::reinterpret_borrow<py::object>(value));
  return all;
}

// Options of one optimizer or group: numbers (and True, False) by name.
Options options_of(const py::dict& values) {
  Options all;
  for (const auto& [name, value] : values) {
    const auto key = name.cast<std::string>();
    if (key == "params" || value.is_none()) continue;
    if (key == "betas") {
      const auto betas = value.cast<std::pair<double, double>>();
      all["beta1"] = betas.first;
      all["beta2"] = betas.second;
    } else {
      all[key] = value.cast<double>();
    }
  }
  return all;
}
double take(const Options& options, const char* name, double otherwise) {
  const auto at = options.find(name);
  return at == options.end() ? otherwise : at->second;
}

std::unique_ptr<Optimizer> make(const std::string& kind, std::vector<Tensor> params,
                                const py::dict& values) {
  const Options o = options_of(values);
  if (kind == "SGD")
    return std::make_unique<SGD>(
        std::move(params),
        SGDOptions{take(o, "lr", 1e-3), take(o, "momentum", 0), take(o, "dampening", 0),
                   take(o, "weight_decay", 0), take(o, "nesterov", 0) != 0});
  AdamOptions options{take(o, "lr", 1e-3),
                      take(o, "beta1", 0.9),
                      take(o, "beta2", 0.999),
                      take(o, "eps", 1e-8),
                      take(o, "weight_decay", kind == "AdamW" ? 1e-2 : 0),
                      take(o, "amsgrad", 0) != 0};
  if (kind == "Adam") return std::make_unique<Adam>(std::move(params), options);
  return std::make_unique<AdamW>(std::move(params), options);
}

py::dict dict_of_state(const std::map<std::string, Tensor>& state) {
  py::dict all;
  for (const auto& [name, tensor] : state) all[py::str(name)] = tensor;
  return all;
}

template <typename T>
auto schedule(py::module_& m, const char* name) {
  return py::class_<T, LRScheduler>(m, name);
}

}  // namespace

void bind_training(py::module_& m) {
  py::module_ optim = m.def_submodule("_optim", "Optimizers and schedules, with PyTorch's names.");
  py::class_<Optimizer>(optim, "_Optimizer")
      .def(py::init([](const std::string& kind, std::vector<Tensor> params, const py::dict& o) {
        return make(kind, std::move(params), o);
      }))
      .def("step", &Optimizer::step, Release())
      .def("zero_grad", &Optimizer::zero_grad)
      .def("add_param_group",
           [](Optimizer& o, std::vector<Tensor> params, const py::dict& options) {
             o.add_param_group({std::move(params), options_of(options)});
           })
      .def("groups",
           [](Optimizer& o) {
             py::list all;
             for (const ParamGroup& g : o.param_groups())
               all.append(py::make_tuple(g.params, py::dict(py::cast(g.options))));
             return all;
           })
      .def("set_option",
           [](Optimizer& o, size_t group, const std::string& name, double value) {
             Options& options = o.param_groups().at(group).options;
             if (!options.count(name))
               fail(ErrorCode::invalid_argument, "the optimizer has no option '" + name + "'");
             options[name] = value;
           })
      .def("state_dict", [](const Optimizer& o) { return dict_of_state(o.state_dict()); })
      .def("load_state_dict",
           [](Optimizer& o, const py::dict& state) { o.load_state_dict(state_of(state)); });

  py::class_<LRScheduler>(optim, "LRScheduler", "Sets the learning rates at every step().")
      .def("step", &LRScheduler::step)
      .def("get_last_lr", &LRScheduler::get_last_lr)
      .def_property_readonly("last_epoch", &LRScheduler::last_epoch)
      .def("state_dict", [](const LRScheduler& s) { return dict_of_state(s.state_dict()); })
      .def("load_state_dict",
           [](LRScheduler& s, const py::dict& state) { s.load_state_dict(state_of(state)); });
  schedule<StepLR>(optim, "StepLR")
      .def(py::init<Optimizer&, int64_t, double>(), py::arg("optimizer"), py::arg("step_size"),
           py::arg("gamma") = 0.1, py::keep_alive<1, 2>());
  schedule<MultiStepLR>(optim, "MultiStepLR")
      .def(py::init<Optimizer&, std::vector<int64_t>, double>(), py::arg("optimizer"),
           py::arg("milestones"), py::arg("gamma") = 0.1, py::keep_alive<1, 2>());
  schedule<CosineAnnealingLR>(optim, "CosineAnnealingLR")
      .def(py::init<Optimizer&, int64_t, double>(), py::arg("optimizer"), py::arg("T_max"),
           py::arg("eta_min") = 0.0, py::keep_alive<1, 2>());
  schedule<LinearLR>(optim, "LinearLR")
      .def(py::init<Optimizer&, double, double, int64_t>(), py::arg("optimizer"),
           py::arg("start_factor") = 1.0 / 3, py::arg("end_factor") = 1.0,
           py::arg("total_iters") = 5, py::keep_alive<1, 2>());
  schedule<LambdaLR>(optim, "LambdaLR")
      .def(py::init([](Optimizer& o, const py::object& factor) {
             // A schedule calls it from step() only, with the GIL.
             return std::make_unique<LambdaLR>(
                 o, [factor](int64_t epoch) { return factor(epoch).cast<double>(); });
           }),
           py::arg("optimizer"), py::arg("lr_lambda"), py::keep_alive<1, 2>());
  schedule<OneCycleLR>(optim, "OneCycleLR")
      .def(py::init([](Optimizer& o, double max_lr, int64_t total_steps, double pct_start,
                       const std::string& anneal, bool cycle_momentum, double base_momentum,
                       double max_momentum, double div_factor, double final_div_factor) {
             return std::make_unique<OneCycleLR>(
                 o,
                 OneCycleOptions{max_lr, total_steps, pct_start, anneal == "linear", cycle_momentum,
                                 base_momentum, max_momentum, div_factor, final_div_factor});
           }),
           py::arg("optimizer"), py::arg("max_lr"), py::arg("total_steps"),
           py::arg("pct_start") = 0.3, py::arg("anneal_strategy") = "cos",
           py::arg("cycle_momentum") = true, py::arg("base_momentum") = 0.85,
           py::arg("max_momentum") = 0.95, py::arg("div_factor") = 25.0,
           py::arg("final_div_factor") = 1e4, py::keep_alive<1, 2>());
  m.def(
      "_clip_grad_norm",
      [](const std::vector<Tensor>& params, double max_norm, double norm_type) {
        return clip_grad_norm(params, max_norm, norm_type);
      },
      Release());
}

}  // namespace octet::python
