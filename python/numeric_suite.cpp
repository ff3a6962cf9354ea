// The numeric suites: a float and a quantized model beside each other, in eager mode and in graph
// mode. octet/ao/ns has the functions that users call.
#include <set>
#include <sstream>
#include <string>
#include <typeindex>

#include "octet/base/error.h"
#include "octet/debug/n_shadows.h"
#include "octet/debug/numeric_suite.h"
#include "octet/debug/numeric_suite_fx.h"
#include "octet/nn/registry.h"
#include "python/samples.h"

namespace octet::python {
namespace {

namespace fx = debug::fx;

// -- eager mode -----------------------------------------------------------------------------------

void bind_eager_suite(py::module_& m) {
  m.def("_compare_weights", [](const py::object& a, const py::object& b) {
    return debug::compare_weights(*module_of(a), *module_of(b));
  });
  m.def("_compare_model_outputs", [](const py::object& a, const py::object& b,
                                     const std::vector<Tensor>& data) {
    const nn::ModulePtr float_model = module_of(a), q_model = module_of(b);
    const Known known(float_model), also(q_model);
    return without_gil([&] { return debug::compare_model_outputs(*float_model, *q_model, data); });
  });
  m.def("_compare_model_stub",
        [](const py::object& a, const py::object& b, const std::vector<std::string>& classes,
           const std::vector<Tensor>& data) {
          const nn::ModulePtr float_model = module_of(a), q_model = module_of(b);
          const Known known(float_model), also(q_model);
          std::set<std::type_index> types;
          for (const std::string& name : classes)
            if (const auto type = nn::registered_type(name)) types.insert(*type);
          return without_gil(
              [&] { return debug::compare_model_stub(*float_model, *q_model, types, data); });
        });
}

// -- results of graph mode ------------------------------------------------------------------------

// PyTorch's dictionary of one result; comparisons are entries of their own there.
py::dict dict_of_result(const fx::NSSingleResultType& r) {
  py::dict d;
  d["type"] = r.type;
  d["values"] = r.values;
  d["ref_node_name"] = r.ref_node_name;
  d["ref_node_target_type"] = r.ref_node_target_type;
  d["prev_node_name"] = r.prev_node_name;
  d["prev_node_target_type"] = r.prev_node_target_type;
  d["index_within_arg"] = r.index_within_arg;
  d["index_of_arg"] = r.index_of_arg;
  d["fqn"] = r.fqn;
  d["qconfig_str"] = r.qconfig_str;
  for (const auto& [name, numbers] : r.comparisons) d[name.c_str()] = numbers;
  return d;
}

py::dict dict_of_results(const fx::NSResultsType& results) {
  py::dict all;
  for (const auto& [layer, by_type] : results) {
    py::dict types;
    for (const auto& [type, by_model] : by_type) {
      py::dict models;
      for (const auto& [model, found] : by_model) {
        py::list list;
        for (const fx::NSSingleResultType& r : found) list.append(dict_of_result(r));
        models[model.c_str()] = list;
      }
      types[type.c_str()] = models;
    }
    all[layer.c_str()] = types;
  }
  return all;
}

using Dict = std::map<std::string, py::object>;
using PythonResults = std::map<std::string, std::map<std::string, std::map<std::string, py::list>>>;

// The way back, of what comparing and printing look at.
fx::NSSingleResultType result_of(const py::handle& given) {
  const auto d = given.cast<Dict>();
  fx::NSSingleResultType r{.type = d.at("type").cast<std::string>()};
  r.values = d.at("values").cast<std::vector<Tensor>>();
  r.ref_node_target_type = d.at("ref_node_target_type").cast<std::string>();
  r.index_within_arg = d.at("index_within_arg").cast<int64_t>();
  r.index_of_arg = d.at("index_of_arg").cast<int64_t>();
  r.fqn = d.at("fqn").cast<std::string>();
  r.qconfig_str = d.at("qconfig_str").cast<std::string>();
  if (const auto found = d.find("sqnr"); found != d.end())
    r.comparisons["sqnr"] = found->second.cast<std::vector<double>>();
  return r;
}

fx::NSResultsType results_of(const PythonResults& given) {
  fx::NSResultsType results;
  for (const auto& [layer, by_type] : given)
    for (const auto& [type, by_model] : by_type)
      for (const auto& [model, found] : by_model)
        for (const py::handle r : found) results[layer][type][model].push_back(result_of(r));
  return results;
}

// -- graph mode -----------------------------------------------------------------------------------

py::tuple pair_of_modules(const std::pair<fx::GraphModulePtr, fx::GraphModulePtr>& both) {
  return py::make_tuple(wrapped(both.first), wrapped(both.second));
}

void bind_graph_suite(py::module_& m) {
  m.def("_extract_weights", [](const std::string& name_a, const py::object& a,
                               const std::string& name_b, const py::object& b) {
    const auto model_a = graph_module_of(a), model_b = graph_module_of(b);
    return dict_of_results(
        without_gil([&] { return fx::extract_weights(name_a, *model_a, name_b, *model_b); }));
  });
  m.def("_add_loggers", [](const std::string& name_a, const py::object& a,
                           const std::string& name_b, const py::object& b, bool inputs) {
    const auto model_a = graph_module_of(a), model_b = graph_module_of(b);
    return pair_of_modules(without_gil([&] {
      return fx::add_loggers(name_a, model_a, name_b, model_b, fx::logger_class<fx::OutputLogger>(),
                             inputs);
    }));
  });
  m.def("_extract_logger_info",
        [](const py::object& a, const py::object& b, const std::string& name) {
          return dict_of_results(fx::extract_logger_info(*module_of(a), *module_of(b), name));
        });
  m.def("_add_shadow_loggers", [](const std::string& name_a, const py::object& a,
                                  const std::string& name_b, const py::object& b, bool inputs) {
    const auto model_a = graph_module_of(a), model_b = graph_module_of(b);
    return wrapped(without_gil([&]() -> nn::ModulePtr {
      return fx::add_shadow_loggers(name_a, model_a, name_b, model_b,
                                    fx::logger_class<fx::OutputLogger>(), inputs);
    }));
  });
  m.def("_extract_shadow_logger_info", [](const py::object& model, const std::string& name) {
    return dict_of_results(fx::extract_shadow_logger_info(*module_of(model), name));
  });
  m.def("_split_layer_errors",
        [](const py::object& a, const py::object& b, const py::iterable& samples) {
          const Batches all = batches_of(samples, "split_layer_errors");
          const auto float_model = graph_module_of(a), quantized = graph_module_of(b);
          const auto found =
              without_gil([&] { return fx::split_layer_errors(float_model, quantized, all); });
          py::dict result;
          for (const auto& [layer, error] : found) {
            py::dict d;
            d["own_sqnr"] = error.own_sqnr();
            d["total_sqnr"] = error.total_sqnr();
            result[layer.c_str()] = d;
          }
          return result;
        });
  // Adds the numbers to the dictionaries that the caller has.
  m.def("_compare_results", [](const PythonResults& given, const std::string& name_1,
                               const std::string& name_2, const py::function& fn,
                               const std::string& comparison) {
    fx::NSResultsType results = results_of(given);
    fx::extend_logger_results_with_comparison(
        results, name_1, name_2,
        [&](const Tensor& x, const Tensor& y) { return fn(x, y).cast<double>(); }, comparison);
    for (const auto& [layer, by_type] : given)
      for (const auto& [type, by_model] : by_type) {
        const auto& made = results.at(layer).at(type).at(name_2);
        const py::list& list = by_model.at(name_2);
        for (size_t i = 0; i < made.size(); ++i)
          list[i][comparison.c_str()] = py::cast(made[i].comparisons.at(comparison));
      }
  });
}

// -- several qconfigs of each layer ---------------------------------------------------------------

void bind_n_shadows(py::module_& m) {
  using fx::QConfigMultiMapping;
  using QConfigs = QConfigMultiMapping::QConfigs;
  const auto type_name = [](const py::object& type) {
    return quant::ObjectType(
        py::module_::import("octet.quantization").attr("_type_name")(type).cast<std::string>());
  };
  py::class_<QConfigMultiMapping>(m, "QConfigMultiMapping",
                                  "Several QConfigMappings at once: each setter takes the qconfigs "
                                  "that are to be compared.")
      .def(py::init<>())
      .def(
          "set_global", [](QConfigMultiMapping& q, const QConfigs& c) { return q.set_global(c); },
          py::arg("qconfigs"))
      .def(
          "set_object_type",
          [type_name](QConfigMultiMapping& q, const py::object& type, const QConfigs& c) {
            return q.set_object_type(type_name(type), c);
          },
          py::arg("object_type"), py::arg("qconfigs"))
      .def("set_module_name_regex", &QConfigMultiMapping::set_module_name_regex,
           py::arg("module_name_regex"), py::arg("qconfigs"))
      .def("set_module_name", &QConfigMultiMapping::set_module_name, py::arg("module_name"),
           py::arg("qconfigs"))
      .def(
          "set_module_name_object_type_order",
          [type_name](QConfigMultiMapping& q, const std::string& path, const py::object& type,
                      int index, const QConfigs& c) {
            return q.set_module_name_object_type_order(path, type_name(type), index, c);
          },
          py::arg("module_name"), py::arg("object_type"), py::arg("index"), py::arg("qconfigs"))
      .def_static("from_list_qconfig_mapping", &QConfigMultiMapping::from_list_qconfig_mapping,
                  py::arg("qconfig_mapping_list"))
      .def_readonly("qconfig_mappings_list", &QConfigMultiMapping::qconfig_mappings_list);
  m.def("_prepare_n_shadows_model",
        [](const py::object& model, const std::vector<Tensor>& inputs,
           const QConfigMultiMapping& qconfigs, const std::optional<quant::BackendConfig>& given) {
          const quant::BackendConfig backend = given.value_or(quant::get_native_backend_config());
          const nn::ModulePtr module = module_of(model);
          const Known known(module);
          return wrapped(without_gil([&]() -> nn::ModulePtr {
            return fx::prepare_n_shadows_model(module, inputs, qconfigs, backend);
          }));
        });
  m.def("_convert_n_shadows_model", [](const py::object& model) {
    const nn::ModulePtr module = module_of(model);
    without_gil([&] { fx::convert_n_shadows_model(*module); });
  });
  m.def("_loggers_set_enabled",
        [](const py::object& model, bool on) { fx::loggers_set_enabled(*module_of(model), on); });
  m.def("_loggers_set_save_activations", [](const py::object& model, bool on) {
    fx::loggers_set_save_activations(*module_of(model), on);
  });
  m.def("_extract_results_n_shadows_model", [](const py::object& model) {
    return dict_of_results(fx::extract_results_n_shadows_model(*module_of(model)));
  });
  m.def("_comparisons_text", [](const PythonResults& results) {
    std::ostringstream out;
    fx::print_comparisons_n_shadows_model(results_of(results), out);
    return out.str();
  });
}

}  // namespace

void bind_numeric_suite(py::module_& m) {
  bind_eager_suite(m);
  bind_graph_suite(m);
  bind_n_shadows(m);
}

}  // namespace octet::python
