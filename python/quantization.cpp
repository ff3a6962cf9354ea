// Observers, QConfigs, and what they do to models: eager mode and graph mode.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <typeindex>

#include "octet/base/error.h"
#include "octet/nn/registry.h"
#include "octet/quant/algorithms/equalize.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/passive.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "octet/quant/workflow/fx.h"
#include "octet/quant/workflow/training.h"
#include "python/modules.h"

namespace octet::python {
namespace {

using quant::ObserverFactory;
using quant::ObserverOptions;
using quant::ObserverScheme;
using quant::QConfig;
using Classes = std::map<std::string, py::object>;  // by registered name: the class that follows

// -- observers written in Python ------------------------------------------------------------------

class PythonObserver final : public quant::Observer,
                             public PythonSide,
                             public std::enable_shared_from_this<PythonObserver> {
 public:
  PythonObserver(py::object cls, py::object dict, const ObserverOptions& options)
      : Observer(options, ""), PythonSide(std::move(cls), std::move(dict)) {}
  PythonObserver(const PythonObserver& other)
      : Observer(other), PythonSide(other), std::enable_shared_from_this<PythonObserver>() {}

  using Observer::forward;
  void observe(const Tensor& x) override {
    if (x.numel() == 0) return;
    const Locked gil;
    wrapped(self()).attr("forward")(x);
    dict()["_seen"] = true;  // an attribute, so that copies and pickles have it
  }
  bool empty() const override {
    const Locked gil;
    return !dict().contains("_seen");
  }
  quant::QParams calculate_qparams() const override {
    const Locked gil;
    const py::tuple result = wrapped(self()).attr("calculate_qparams")();
    if (result.size() != 2)
      fail(ErrorCode::invalid_argument, type_name() + ": calculate_qparams() gave " +
                                            std::to_string(result.size()) +
                                            " results; expected (scale, zero_point)");
    const auto numbers = [](const py::handle& part) {
      return tensor_of(py::reinterpret_borrow<py::object>(part))
          .to(DType::float64)
          .to_vector<double>();
    };
    return quant::make_qparams(numbers(result[0]), numbers(result[1]), options());
  }
  Tensor min_val() const override { return end("min_val", Observer::min_val()); }
  Tensor max_val() const override { return end("max_val", Observer::max_val()); }
  void reset() override {
    const Locked gil;
    dict().attr("pop")("_seen", py::none());
    const py::object view = wrapped(self());
    if (py::hasattr(view, "reset_min_max_vals")) view.attr("reset_min_max_vals")();
  }
  const std::type_info& class_type() const override { return type(); }
  std::string type_name() const override { return name(); }
  std::string extra_repr() const override { return text_of(self(), "extra_repr").value_or(""); }

 protected:
  void observe_floats(const Tensor& x) override { observe(x); }
  void merge_same(const Observer&) override {
    fail(ErrorCode::unsupported, type_name() + ": observers written in Python cannot be merged");
  }

 private:
  nn::ModulePtr copy_of_class() const override { return std::make_shared<PythonObserver>(*this); }
  std::shared_ptr<PythonObserver> self() const {
    return const_cast<PythonObserver*>(this)->shared_from_this();
  }
  Tensor end(const char* name, Tensor otherwise) const {
    const Locked gil;
    const py::dict attributes = dict();
    return attributes.contains(name) && py::isinstance<Tensor>(attributes[name])
               ? attributes[name].cast<Tensor>()
               : otherwise;
  }
};

// How to make observers of a class that is written in Python: known by a name of its own, for its
// options are whatever its constructor takes.
ObserverFactory python_factory(const py::object& cls, const py::dict& options) {
  static int64_t count = 0;  // GIL held
  const nn::ModulePtr probe = module_of(cls(**options));
  const auto* observer = dynamic_cast<const PythonObserver*>(probe.get());
  if (!observer)
    fail(ErrorCode::invalid_argument,
         probe->type_name() + " is no observer: derive it from octet.quantization.ObserverBase");
  const std::string name = cls.attr("__name__").cast<std::string>() + "#" + std::to_string(count++);
  quant::detail::register_observer(
      name, quant::is_per_channel(observer->options().qscheme),
      [cls = keep(cls), options = keep(options)](const ObserverOptions&, std::string label) {
        const Locked gil;
        const py::object view = (*cls)(**py::dict(*options));
        view.attr("__dict__")["_with_args"] = *options;  // for pickles
        auto made = std::dynamic_pointer_cast<quant::Observer>(module_of(view));
        made->set_label(std::move(label));
        return made;
      });
  return ObserverFactory(name, observer->options());
}

ObserverOptions options_of(const py::dict& values, ObserverOptions options = {}) {
  Attrs attrs = quant::to_attrs(options);
  for (const auto& [name, value] : values) {
    const auto key = name.cast<std::string>();
    if (value.is_none()) continue;
    if (py::isinstance<ObserverScheme>(value))
      attrs.set(key, std::string(to_string(value.cast<ObserverScheme>())));
    else
      attrs.set(key, attr_of(value));
  }
  return quant::options_from(attrs);
}

// A scale and a zero point, or tensors of them.
py::tuple pair_of(const quant::QParams& q) {
  const auto n = static_cast<int64_t>(q.scales.size());
  Tensor zeros = Tensor::from(q.zero_points, {n});
  const bool whole = !q.quantizer || !q.quantizer->has_float_zero_points();
  return py::make_tuple(Tensor::from(q.scales, {n}).to(DType::float32),
                        zeros.to(whole ? DType::int64 : DType::float32));
}

void bind_observers(py::module_& m) {
  py::enum_<ObserverScheme>(m, "qscheme", "How qparams are chosen.")
      .value("per_tensor_affine", ObserverScheme::per_tensor_affine)
      .value("per_tensor_symmetric", ObserverScheme::per_tensor_symmetric)
      .value("per_channel_affine", ObserverScheme::per_channel_affine)
      .value("per_channel_symmetric", ObserverScheme::per_channel_symmetric)
      .value("per_channel_affine_float_qparams", ObserverScheme::per_channel_affine_float_qparams)
      .export_values();

  py::class_<ObserverFactory>(m, "ObserverFactory",
                              "How to make an observer, or a fake-quantize module: a value.")
      .def(py::init<>(), "None: the tensor stays float.")
      .def(py::init([](const std::string& name, const py::dict& options) {
             const ObserverFactory plain(name);
             return plain.with_args(options_of(options, plain.options()));
           }),
           py::arg("name"), py::arg("options") = py::dict())
      .def_static("python", python_factory)
      .def("with_args",
           [](const ObserverFactory& f, const py::kwargs& options) {
             return f.with_args(options_of(options, f.options()));
           })
      .def("fake_quantize", &ObserverFactory::fake_quantize, py::arg("name") = "FakeQuantize")
      .def("with_grad_scaling", &ObserverFactory::with_grad_scaling)
      .def("__call__",
           [](const ObserverFactory& f) {
             return wrapped(without_gil([&] { return f.make_module(); }));
           })
      .def_property_readonly("name", &ObserverFactory::name)
      .def_property_readonly("fake_quantize_name", &ObserverFactory::fake_quantize_name)
      .def_property_readonly(
          "options", [](const ObserverFactory& f) { return dict_of(quant::to_attrs(f.options())); })
      .def("__bool__", [](const ObserverFactory& f) { return static_cast<bool>(f); })
      .def(
          "__eq__", [](const ObserverFactory& a, const ObserverFactory& b) { return a == b; },
          py::is_operator())
      .def("__repr__", [](const ObserverFactory& f) { return quant::to_string(f); });

  m.def("_python_observer",
        [](py::object cls, py::object dict, const py::dict& options) -> nn::ModulePtr {
          return std::make_shared<PythonObserver>(std::move(cls), std::move(dict),
                                                  options_of(options));
        });
  const auto observer = [](nn::Module& m) -> quant::Observer& {
    if (auto* o = dynamic_cast<quant::Observer*>(&m)) return *o;
    if (auto* f = dynamic_cast<quant::FakeQuantizeBase*>(&m)) return f->observer();
    fail(ErrorCode::invalid_argument, "a " + m.type_name() + " is no observer");
  };
  m.def("_observer_options",
        [observer](nn::Module& o) { return dict_of(quant::to_attrs(observer(o).options())); });
  m.def("_observer_scheme", [observer](nn::Module& o) { return observer(o).options().qscheme; });
  m.def("_observer_dtype", [observer](nn::Module& o) { return observer(o).options().dtype; });
  m.def("_observer_codes", [observer](nn::Module& o) {
    const quant::CodeRange range = quant::code_range(observer(o).options());
    return py::make_tuple(range.quant_min, range.quant_max);
  });
  m.def("_observer_range", [observer](nn::Module& o) {
    return py::make_tuple(observer(o).min_val(), observer(o).max_val());
  });
  m.def("_observer_qparams",
        [](nn::Module& o) { return pair_of(without_gil([&] { return quant::qparams_of(o); })); });
  m.def("_observer_reset", [observer](nn::Module& o) { observer(o).reset(); });
  m.def("_observer_merge",
        [observer](nn::Module& o, nn::Module& other) { observer(o).merge(observer(other)); });
  m.def("_observed_tensors",
        [](nn::Module& o) { return o.as<quant::RecordingObserver>().get_tensor_value(); });
  m.def("_qparams_of_range", [](const Tensor& min, const Tensor& max, const py::dict& options) {
    return pair_of(quant::calculate_qparams(min, max, options_of(options)));
  });
  for (const auto& [name, fn] : {std::pair{"enable_fake_quant", &quant::enable_fake_quant},
                                 {"disable_fake_quant", &quant::disable_fake_quant},
                                 {"enable_observer", &quant::enable_observer},
                                 {"disable_observer", &quant::disable_observer},
                                 {"enable_param_learning", &quant::enable_param_learning}})
    m.def(
        name, [fn = fn](const py::object& model) { fn(*module_of(model)); }, py::arg("model"));
}

py::module_ observers_module() { return py::module_::import("octet.quantization._observers"); }

// -- qconfigs -------------------------------------------------------------------------------------

void bind_qconfigs(py::module_& m) {
  py::class_<QConfig>(m, "QConfig",
                      "How a layer is quantized: an observer of what it gives and "
                      "one of its weight.")
      .def(py::init([](const py::object& activation, const py::object& weight) {
             const auto factory = [](const py::object& o) {
               return py::module_::import("octet.quantization")
                   .attr("_factory")(o)
                   .cast<ObserverFactory>();
             };
             return QConfig{factory(activation), factory(weight)};
           }),
           py::arg("activation"), py::arg("weight"))
      .def_readonly("activation", &QConfig::activation)
      .def_readonly("weight", &QConfig::weight)
      .def(
          "__eq__", [](const QConfig& a, const QConfig& b) { return a == b; }, py::is_operator())
      .def("__hash__", [](const QConfig& q) { return std::hash<std::string>()(to_string(q)); })
      .def("__repr__", [](const QConfig& q) { return quant::to_string(q); })
      .def(py::pickle(
          [](const QConfig& q) -> py::dict {
            return observers_module().attr("_portable")(dict_of(quant::to_attrs(q)));
          },
          [](const py::dict& state) {
            const py::dict attributes = observers_module().attr("_local")(state);
            return quant::qconfig_from(attrs_of(attributes));
          }));
  m.def(
      "get_default_qconfig",
      [](const std::string& backend) { return quant::get_default_qconfig(backend); },
      py::arg("backend") = "native");
  m.def(
      "get_default_qat_qconfig",
      [](const std::string& backend, int version) {
        return quant::get_default_qat_qconfig(backend, version);
      },
      py::arg("backend") = "native", py::arg("version") = 1);
  m.def("qconfig_names", &quant::qconfig_names);
  // PyTorch's names of what is made without arguments.
  py::dict named;
  for (const auto& [name, factory] :
       std::initializer_list<std::pair<const char*, ObserverFactory (*)()>>{
#define OCTET_FACTORY(name) {#name, &quant::name}
           OCTET_FACTORY(default_observer),
           OCTET_FACTORY(default_histogram_observer),
           OCTET_FACTORY(default_weight_observer),
           OCTET_FACTORY(default_per_channel_weight_observer),
           OCTET_FACTORY(weight_observer_range_neg_127_to_127),
           OCTET_FACTORY(per_channel_weight_observer_range_neg_127_to_127),
           OCTET_FACTORY(default_placeholder_observer),
           OCTET_FACTORY(default_debug_observer),
           OCTET_FACTORY(default_dynamic_quant_observer),
           OCTET_FACTORY(default_float_qparams_observer),
           OCTET_FACTORY(default_float_qparams_observer_4bit),
           OCTET_FACTORY(default_fixed_qparams_range_0to1_observer),
           OCTET_FACTORY(default_fixed_qparams_range_neg1to1_observer),
           OCTET_FACTORY(default_affine_fixed_qparams_observer),
           OCTET_FACTORY(default_symmetric_fixed_qparams_observer),
           OCTET_FACTORY(default_reuse_input_observer),
           OCTET_FACTORY(default_fake_quant),
           OCTET_FACTORY(default_weight_fake_quant),
           OCTET_FACTORY(default_per_channel_weight_fake_quant),
           OCTET_FACTORY(default_dynamic_fake_quant),
           OCTET_FACTORY(default_histogram_fake_quant),
           OCTET_FACTORY(default_embedding_fake_quant),
           OCTET_FACTORY(default_embedding_fake_quant_4bit),
           OCTET_FACTORY(default_fixed_qparams_range_0to1_fake_quant),
           OCTET_FACTORY(default_fixed_qparams_range_neg1to1_fake_quant),
           OCTET_FACTORY(default_affine_fixed_qparams_fake_quant),
           OCTET_FACTORY(default_symmetric_fixed_qparams_fake_quant),
           OCTET_FACTORY(default_fused_act_fake_quant),
           OCTET_FACTORY(default_fused_wt_fake_quant),
           OCTET_FACTORY(default_fused_per_channel_wt_fake_quant),
           OCTET_FACTORY(fused_wt_fake_quant_range_neg_127_to_127),
           OCTET_FACTORY(fused_per_channel_wt_fake_quant_range_neg_127_to_127)})
    named[name] = factory();
#undef OCTET_FACTORY
  m.attr("_factories") = named;

  using quant::QConfigMapping;
  using MaybeQConfig = std::optional<QConfig>;
  const auto type_name = [](const py::object& type) {
    return quant::ObjectType(
        py::module_::import("octet.quantization").attr("_type_name")(type).cast<std::string>());
  };
  py::class_<QConfigMapping>(m, "QConfigMapping", "Which layers are quantized, and how.")
      .def(py::init<>())
      .def(
          "set_global", [](QConfigMapping& q, const MaybeQConfig& c) { return q.set_global(c); },
          py::arg("qconfig"))
      .def(
          "set_object_type",
          [type_name](QConfigMapping& q, const py::object& type, const MaybeQConfig& c) {
            return q.set_object_type(type_name(type), c);
          },
          py::arg("object_type"), py::arg("qconfig"))
      .def(
          "set_module_name_regex",
          [](QConfigMapping& q, const std::string& regex, const MaybeQConfig& c) {
            return q.set_module_name_regex(regex, c);
          },
          py::arg("module_name_regex"), py::arg("qconfig"))
      .def(
          "set_module_name",
          [](QConfigMapping& q, const std::string& name, const MaybeQConfig& c) {
            return q.set_module_name(name, c);
          },
          py::arg("module_name"), py::arg("qconfig"))
      .def(
          "set_module_name_object_type_order",
          [type_name](QConfigMapping& q, const std::string& name, const py::object& type, int index,
                      const MaybeQConfig& c) {
            return q.set_module_name_object_type_order(name, type_name(type), index, c);
          },
          py::arg("module_name"), py::arg("object_type"), py::arg("index"), py::arg("qconfig"))
      .def(
          "__eq__", [](const QConfigMapping& a, const QConfigMapping& b) { return a == b; },
          py::is_operator())
      .def("to_json", &QConfigMapping::to_json)
      .def_static(
          "from_json", [](const std::string& text) { return QConfigMapping::from_json(text); },
          py::arg("text"));
  m.def(
      "get_default_qconfig_mapping",
      [](const std::string& b) { return quant::get_default_qconfig_mapping(b); },
      py::arg("backend") = "native");
  m.def(
      "get_default_qat_qconfig_mapping",
      [](const std::string& b, int version) {
        return quant::get_default_qat_qconfig_mapping(b, version);
      },
      py::arg("backend") = "native", py::arg("version") = 1);
}

// -- custom modules -------------------------------------------------------------------------------

std::type_index class_index(const std::string& registered_name) {
  if (const auto type = nn::registered_type(registered_name)) return *type;
  fail(ErrorCode::not_found, "no class of modules is called '" + registered_name + "'");
}

// from_float or from_observed of a class that is written in Python.
std::function<nn::ModulePtr(nn::Module&)> maker(const py::object& cls, const char* method) {
  return [cls = keep(cls), method](nn::Module& module) {
    const Locked gil;
    return module_of(python_function("_made_of")(*cls, method, wrapped(shared(module))));
  };
}

using Backend = std::optional<quant::BackendConfig>;

quant::EagerOptions eager_options(const Classes& to_observed, const Classes& to_quantized,
                                  const Backend& backend) {
  quant::EagerOptions options{.inplace = true};
  options.backend_config = backend;
  for (const auto& [name, cls] : to_observed)
    options.custom.float_to_observed[class_index(name)] = maker(cls, "from_float");
  for (const auto& [name, cls] : to_quantized)
    options.custom.observed_to_quantized[class_index(name)] = maker(cls, "from_observed");
  return options;
}

using ByName = std::map<std::string, std::optional<QConfig>>;

// QConfigs by path and by class (the registered name). Error if the model has a module of none of
// the classes.
quant::QConfigSpec spec_of(nn::Module& model, const ByName& by_path, const ByName& by_class) {
  quant::QConfigSpec spec;
  for (const auto& [path, qconfig] : by_path) spec.set(path, qconfig);
  for (const auto& [name, qconfig] : by_class)
    for (const auto& [path, module] : model.named_modules())
      if (nn::is_registered_as(*module, name)) spec.set_type(module->class_type(), qconfig);
  if (spec.empty() && !by_class.empty()) {
    std::string names;
    for (const auto& [name, qconfig] : by_class) names += (names.empty() ? "" : ", ") + name;
    fail(ErrorCode::invalid_argument,
         "the model, a " + model.type_name() + ", has no module of class " + names);
  }
  return spec;
}

// A function of a model that works on it, or on a copy unless `inplace`.
template <typename Fn>
py::object on_model(const py::object& model, bool inplace, Fn&& fn) {
  const nn::ModulePtr given = module_of(model);
  const nn::ModulePtr at = inplace ? given : without_gil([&] { return given->clone(); });
  const Known known(at);
  return wrapped(without_gil([&] { return fn(at); }));
}

py::object report_of(const quant::ConversionReport& report) {
  py::list entries;
  for (const auto& e : report.entries)
    entries.append(py::make_tuple(e.node, e.op, e.quantized, e.reason));
  return py::make_tuple(entries, report.warnings);
}

void bind_backends(py::module_& m) {
  using quant::BackendConfig;
  py::class_<BackendConfig>(m, "BackendConfig", "What can be quantized, to which dtypes, and how.")
      .def("to_json", &BackendConfig::to_json)
      .def_static(
          "from_json", [](const std::string& text) { return BackendConfig::from_json(text); },
          py::arg("text"));
  m.def(
      "get_backend_config", [](const std::string& name) { return quant::get_backend_config(name); },
      py::arg("name") = "native", "native, fbgemm, onednn, qnnpack or tensorrt.");
  m.def("get_native_backend_config", &quant::get_native_backend_config);
  m.def("get_fbgemm_backend_config", &quant::get_fbgemm_backend_config);
  m.def("get_onednn_backend_config", &quant::get_onednn_backend_config);
  m.def("get_qnnpack_backend_config", &quant::get_qnnpack_backend_config);
  m.def("get_tensorrt_backend_config", &quant::get_tensorrt_backend_config);
}

void bind_eager(py::module_& m) {
  m.def("_equalize", [](const py::object& model, bool inplace, const quant::FuseList& lists,
                        double threshold, const std::vector<Tensor>& sample) {
    return on_model(model, inplace, [&](const nn::ModulePtr& at) {
      return quant::equalize_untyped(at, lists,
                                     {.threshold = threshold, .inplace = true, .sample = sample});
    });
  });
  for (const bool qat : {false, true})
    m.def(qat ? "_prepare_qat" : "_prepare", [qat](const py::object& model, bool inplace,
                                                   const Classes& custom, const Backend& backend) {
      const quant::EagerOptions options = eager_options(custom, {}, backend);
      return on_model(model, inplace, [&](const nn::ModulePtr& at) {
        return qat ? quant::prepare_qat_module(at, options) : quant::prepare_module(at, options);
      });
    });
  m.def("_convert",
        [](const py::object& model, bool inplace, const Classes& custom, bool for_loading,
           bool strict, const py::object& on_report, const Backend& backend) {
          quant::ConversionReport report;
          quant::EagerOptions options = eager_options({}, custom, backend);
          options.for_loading = for_loading;
          options.strict = strict;
          options.report = &report;
          py::object result = on_model(model, inplace, [&](const nn::ModulePtr& at) {
            return quant::convert_module(at, options);
          });
          if (!on_report.is_none()) on_report(report_of(report));
          return result;
        });
  m.def("_quantize_dynamic", [](const py::object& model, bool inplace, const ByName& by_path,
                                const ByName& by_class, DType dtype) {
    return on_model(model, inplace, [&](const nn::ModulePtr& at) {
      return quant::quantize_dynamic_module(at, spec_of(*at, by_path, by_class), dtype,
                                            {.inplace = true});
    });
  });
  m.def("_quantize_weight_only", [](const py::object& model, bool inplace, const ByName& by_path,
                                    const ByName& by_class, DType dtype) {
    return on_model(model, inplace, [&](const nn::ModulePtr& at) {
      return quant::quantize_weight_only_module(at, spec_of(*at, by_path, by_class), dtype,
                                                {.inplace = true});
    });
  });
  m.def("_dynamic_qconfig_for", &quant::dynamic_qconfig_for);
  m.def("_fuse_modules",
        [](const py::object& model, bool inplace, const quant::FuseList& lists, bool qat) {
          return on_model(model, inplace, [&](const nn::ModulePtr& at) {
            return quant::fuse_modules_untyped(at, lists, qat, {.inplace = true});
          });
        });
  m.def("_propagate_qconfig",
        [](const py::object& model, const ByName& by_path, const ByName& by_class) {
          const nn::ModulePtr at = module_of(model);
          quant::propagate_qconfig(*at, spec_of(*at, by_path, by_class));
        });
  m.def(
      "add_quant_dequant",
      [](const py::object& model) {
        quant::add_quant_dequant(*module_of(model));
        return model;
      },
      py::arg("model"));
  m.def("_quant_wrapper", [](const py::object& inner) -> nn::ModulePtr {
    return nn::make<quant::QuantWrapper>(module_of(inner));
  });
  // from_float of octet's own layers, by the class that it is to be: a prepared module of any class
  // that is quantized so.
  m.def("_from_float", [](const std::string& name, const py::object& module) {
    const nn::ModulePtr given = module_of(module);
    for (const quant::QuantMode mode : {quant::QuantMode::statically, quant::QuantMode::dynamically,
                                        quant::QuantMode::weight_only}) {
      const auto mapping = quant::eager_mapping_of(quant::get_native_backend_config(), mode);
      if (!mapping.has(*given)) continue;
      const nn::ModulePtr made = without_gil([&] { return mapping.make(*given); });
      if (nn::is_registered_as(*made, name)) return wrapped(made);
    }
    fail(ErrorCode::unsupported, "a " + given->type_name() + " does not become a " + name);
  });
}

// -- graph mode -----------------------------------------------------------------------------------

// PrepareCustomConfig and ConvertCustomConfig, as octet.quantization has them.
struct CustomConfig {
  std::map<std::string, Classes> custom;  // by mode: "static", "dynamic", "weight_only"
  std::vector<std::string> standalone_names, non_traceable_names, preserved;
  std::vector<std::string> non_traceable_classes;
  std::vector<int> inputs, outputs;
};
quant::QuantMode mode_of(const std::string& name) {
  if (name == "static") return quant::QuantMode::statically;
  if (name == "dynamic") return quant::QuantMode::dynamically;
  if (name == "weight_only") return quant::QuantMode::weight_only;
  fail(ErrorCode::invalid_argument,
       "no mode of quantization is called '" + name + "'; expected static, dynamic or weight_only");
}

quant::PrepareCustomConfig prepare_config(const CustomConfig& given) {
  quant::PrepareCustomConfig config;
  for (const auto& [mode, classes] : given.custom)
    for (const auto& [name, cls] : classes)
      config.float_to_observed[mode_of(mode)][class_index(name)] = maker(cls, "from_float");
  for (const std::string& path : given.standalone_names) config.set_standalone_module_name(path);
  config.set_non_traceable_module_names(given.non_traceable_names);
  for (const std::string& name : given.non_traceable_classes)
    config.non_traceable_classes.insert(class_index(name));
  config.set_input_quantized_indexes(given.inputs);
  config.set_output_quantized_indexes(given.outputs);
  config.set_preserved_attributes(given.preserved);
  return config;
}

void bind_graph_mode(py::module_& m) {
  using Prepared = quant::ObservedGraphModule;
  py::class_<CustomConfig>(m, "_CustomConfig")
      .def(py::init<>())
      .def_readwrite("custom", &CustomConfig::custom)
      .def_readwrite("standalone_names", &CustomConfig::standalone_names)
      .def_readwrite("non_traceable_names", &CustomConfig::non_traceable_names)
      .def_readwrite("non_traceable_classes", &CustomConfig::non_traceable_classes)
      .def_readwrite("preserved", &CustomConfig::preserved)
      .def_readwrite("inputs", &CustomConfig::inputs)
      .def_readwrite("outputs", &CustomConfig::outputs);
  for (const bool qat : {false, true}) {
    m.def(qat ? "_prepare_qat_graph" : "_prepare_graph",
          [qat](const graph::Graph& g, const quant::QConfigMapping& mapping,
                const std::vector<std::string>& skip, const Backend& backend) {
            return wrapped(without_gil([&]() -> nn::ModulePtr {
              const quant::PrepareOptions options{
                  .skip = skip,
                  .engine = "",
                  .backend = backend.value_or(quant::get_native_backend_config())};
              return qat ? quant::prepare_qat_fx(g, mapping, options)
                         : quant::prepare_fx(g, mapping, options);
            }));
          });
    m.def(
        qat ? "_prepare_qat_fx" : "_prepare_fx",
        [qat](const py::object& model, const quant::QConfigMapping& mapping,
              const std::vector<Tensor>& inputs, const CustomConfig& custom, const Backend& given) {
          const quant::BackendConfig backend = given.value_or(quant::get_native_backend_config());
          const nn::ModulePtr module = module_of(model);
          const Known known(module);
          const quant::PrepareCustomConfig config = prepare_config(custom);
          return wrapped(without_gil([&]() -> nn::ModulePtr {
            return qat ? quant::prepare_qat_fx(module, mapping, inputs, config, backend)
                       : quant::prepare_fx(module, mapping, inputs, config, backend);
          }));
        });
  }
  m.def("_fuse_fx", [](const py::object& model, const std::vector<Tensor>& inputs) {
    const nn::ModulePtr module = module_of(model);
    const Known known(module);
    return wrapped(without_gil([&]() -> nn::ModulePtr { return quant::fuse_fx(module, inputs); }));
  });
  for (const bool reference : {false, true})
    m.def(reference ? "_convert_to_reference_fx" : "_convert_fx",
          [reference](const py::object& given, const CustomConfig& custom, bool for_loading,
                      bool strict, const py::object& on_report, const Backend& backend) {
            const nn::ModulePtr prepared = module_of(given);
            quant::ConvertCustomConfig config;
            config.for_loading = for_loading;
            for (const auto& [mode, classes] : custom.custom)
              for (const auto& [name, cls] : classes)
                config.observed_to_quantized[mode_of(mode)][class_index(name)] =
                    maker(cls, "from_observed");
            const auto p = std::dynamic_pointer_cast<Prepared>(prepared);
            if (!p)
              fail(ErrorCode::invalid_argument, "convert_fx: a " + prepared->type_name() +
                                                    " is given; expected what prepare_fx returned");
            quant::ConversionReport report;
            const nn::ModulePtr made = without_gil([&]() -> nn::ModulePtr {
              return reference ? quant::convert_to_reference_fx(p, config, backend, &report)
                               : quant::convert_fx(p, config, backend, &report, strict);
            });
            if (!on_report.is_none()) on_report(report_of(report));
            return wrapped(made);
          });
  // Was it prepared from a graph of operators, and not from modules?
  m.def("_is_of_operators", [](nn::Module& prepared) {
    return prepared.as<Prepared>().preparation().class_names.empty();
  });
  m.def("_qconfig_map", [](nn::Module& prepared) { return prepared.as<Prepared>().qconfig_map(); });
  m.def("_float_graph", [](nn::Module& prepared) {
    return without_gil([&] { return prepared.as<Prepared>().watched().graph; });
  });
  m.def("_node_name_to_scope",
        [](nn::Module& prepared) { return prepared.as<Prepared>().node_name_to_scope(); });
  m.def(
      "quantize_dynamic_fx",
      [](const graph::Graph& g, const std::optional<QConfig>& qconfig) {
        return quant::quantize_dynamic_fx(g,
                                          qconfig.value_or(quant::per_channel_dynamic_qconfig()));
      },
      py::arg("graph"), py::arg("qconfig") = py::none(), Release());
  m.def(
      "quantize_weight_only_fx",
      [](const graph::Graph& g) { return quant::quantize_weight_only_fx(g); }, py::arg("graph"),
      Release());
}

}  // namespace

void bind_quantization(py::module_& m) {
  bind_observers(m);
  bind_qconfigs(m);
  bind_backends(m);
  bind_eager(m);
  bind_graph_mode(m);
}

}  // namespace octet::python
