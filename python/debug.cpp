// What quantizing did, what it costs and where, and the best way to do it.
#include <cmath>
#include <optional>
#include <string>

#include "octet/base/error.h"
#include "octet/debug/calibration.h"
#include "octet/debug/compare.h"
#include "octet/debug/explain.h"
#include "octet/debug/report.h"
#include "octet/debug/sensitivity.h"
#include "octet/nn/linear.h"
#include "octet/quant/tune/doctor.h"
#include "octet/quant/tune/tune.h"
#include "python/samples.h"

namespace octet::python {

Batches batches_of(const py::iterable& samples, const char* who) {
  Batches all;
  for (const py::handle sample : samples)
    all.push_back(tensors_of(py::isinstance<py::tuple>(sample)
                                 ? py::args(py::reinterpret_borrow<py::tuple>(sample))
                                 : py::args(py::make_tuple(sample))));
  if (all.empty()) fail(ErrorCode::invalid_argument, std::string(who) + ": no samples");
  return all;
}
Batches maybe_batches_of(const py::object& samples, const char* who) {
  return samples.is_none() ? Batches() : batches_of(samples, who);
}

quant::ObservedGraphModule& prepared_of(const py::object& prepared) {
  return module_of(prepared)->as<quant::ObservedGraphModule>();
}

std::shared_ptr<graph::GraphModule> graph_module_of(const py::object& model) {
  if (py::isinstance<graph::Graph>(model)) {
    nn::Identity without_parameters;  // a graph on codes is fine, which cannot be trained
    without_parameters.eval();
    return nn::make<graph::GraphModule>(model.cast<const graph::Graph&>(), without_parameters);
  }
  const nn::ModulePtr module = module_of(model);
  if (auto made = std::dynamic_pointer_cast<graph::GraphModule>(module)) return made;
  fail(ErrorCode::invalid_argument,
       "a " + module->type_name() +
           " is no graph; expected a Graph, or what trace, prepare_fx or convert_fx gave");
}

namespace {

struct Report {
  debug::Comparison comparison;
};

// -- explain --------------------------------------------------------------------------------------

py::dict dict_of_step(const debug::ExplainedStep& s) {
  const auto operands = [](const std::vector<debug::ExplainedOperand>& all) {
    py::list list;
    for (const debug::ExplainedOperand& o : all)
      list.append(py::make_tuple(o.name, to_string(o.type)));
    return list;
  };
  py::dict d;
  d["name"] = s.name;
  d["op"] = s.op;
  d["inputs"] = operands(s.inputs);
  d["outputs"] = operands(s.outputs);
  d["numbers"] = to_string(s.numbers);
  d["why_float"] = s.why_float;
  d["kernel"] = s.kernel;
  d["engine"] = s.engine;
  d["isa"] = s.isa;
  d["fused"] = s.fused;
  d["note"] = s.note;
  d["multiply_adds"] = s.multiply_adds;
  d["seconds"] = s.seconds;
  d["share"] = s.share;
  d["verified"] = s.verified;
  d["on_codes"] = s.on_codes();
  return d;
}

void bind_explain(py::module_& m) {
  using debug::Explanation;
  py::class_<Explanation>(m, "Explanation", "What each step really computed with.")
      .def_readonly("machine", &Explanation::machine)
      .def_readonly("engine", &Explanation::engine)
      .def_readonly("seconds", &Explanation::seconds)
      .def_readonly("notes", &Explanation::notes)
      .def_readonly("output_differs", &Explanation::output_differs)
      .def_property_readonly("steps",
                             [](const Explanation& e) {
                               py::list all;
                               for (const auto& s : e.steps) all.append(dict_of_step(s));
                               return all;
                             })
      .def("summary", &Explanation::summary)
      .def(
          "not_on_codes",
          [](const Explanation& e, const std::string& pattern) {
            std::vector<std::string> names;
            for (const auto* s : e.not_on_codes(pattern)) names.push_back(s->name);
            return names;
          },
          py::arg("pattern") = "", "The steps of these names that did not run on 8-bit codes.")
      .def("details", [](const Explanation& e) { return debug::to_string(e, true); })
      .def("__str__", [](const Explanation& e) { return debug::to_string(e); })
      .def("__repr__", [](const Explanation& e) { return debug::to_string(e); });
  m.def(
      "explain",
      [](const py::object& what, const py::iterable& samples, double seconds, bool verify) {
        const Batches all = batches_of(samples, "explain");
        const debug::ExplainOptions options{seconds, verify};
        if (py::isinstance<runtime::Program>(what)) {
          const auto& program = what.cast<const runtime::Program&>();
          return without_gil([&] { return debug::explain(program, all, options); });
        }
        const nn::ModulePtr module = module_of(what);
        const Known known(module);
        return without_gil([&] { return debug::explain(*module, all, options); });
      },
      py::arg("model"), py::arg("samples"), py::arg("seconds") = 0.3, py::arg("verify") = false,
      "What each step of a Program or a module computes with. `verify` computes each once more "
      "with the reference engine.");
}

// -- sensitivity ----------------------------------------------------------------------------------

void bind_sensitivity(py::module_& m) {
  using debug::Sensitivity;
  py::class_<Sensitivity>(m, "Sensitivity", "What each layer costs in accuracy; the worst first.")
      .def_property_readonly("method", [](const Sensitivity& s) { return to_string(s.method); })
      .def_readonly("all_sqnr", &Sensitivity::all_sqnr)
      .def_property_readonly("layers", [](const Sensitivity& s) {
        py::list all;
        for (const debug::LayerSensitivity& l : s.layers) {
          py::dict d;
          d["name"] = l.name;
          d["op"] = l.op;
          d["sqnr"] = l.sqnr;
          d["share"] = l.share;
          d["weight_bytes"] = l.weight_bytes;
          d["left_float"] = l.left_float;
          d["reason"] = l.reason;
          d["time_share"] = l.time_share;
          d["sentence"] = l.sentence;
          all.append(d);
        }
        return all;
      });
  m.def(
      "sensitivity",
      [](const py::object& prepared, const py::iterable& samples, const std::string& method,
         int probes, const std::string& state, const py::object& progress) {
        quant::ObservedGraphModule& model = prepared_of(prepared);
        const Batches all = batches_of(samples, "sensitivity");
        const debug::SensitivityOptions options{debug::parse_sensitivity_method(method), probes,
                                                state, callback<size_t, size_t>(progress)};
        return without_gil([&] { return debug::sensitivity(model, all, options); });
      },
      py::arg("prepared"), py::arg("samples"), py::arg("method") = "alone", py::arg("probes") = 4,
      py::arg("state") = "", py::arg("progress") = py::none(),
      "What each layer of a graph that prepare_fx prepared, calibrated, costs: method alone, "
      "without or estimate. progress(done, all) is called after each layer.");
  m.def(
      "leaving_float",
      [](const py::object& prepared, const std::vector<std::string>& names) {
        quant::ObservedGraphModule& model = prepared_of(prepared);
        return without_gil([&] { return debug::leaving_float(model, names); });
      },
      py::arg("prepared"), py::arg("names"), "The 8-bit graph in which these layers stay float.");
}

// -- calibration sets -----------------------------------------------------------------------------

py::dict dict_of_quality(const debug::CalibrationQuality& q) {
  py::list values, influences;
  for (const debug::CalibrationQuality::Value& v : q.values) {
    py::dict d;
    d["name"] = v.name;
    d["moved"] = v.moved;
    d["clipped"] = v.clipped;
    d["sample"] = v.sample;
    d["times"] = v.times;
    values.append(d);
  }
  for (const debug::CalibrationQuality::Influence& i : q.influences) {
    py::dict d;
    d["sample"] = i.sample;
    d["ranges"] = i.values;
    d["value"] = i.value;
    d["times"] = i.times;
    influences.append(d);
  }
  py::dict d;
  d["samples"] = q.samples;
  d["half"] = q.half;
  d["moving"] = q.moving;
  d["clipped"] = q.clipped;
  d["suggested"] = q.suggested;
  d["warnings"] = q.warnings;
  d["values"] = values;
  d["influences"] = influences;
  return d;
}

void bind_calibration(py::module_& m) {
  using debug::CalibrationWatch;
  py::class_<CalibrationWatch>(
      m, "CalibrationWatch",
      "Whether the samples that calibrate a prepared graph are enough: made before the first one.")
      .def(py::init([](const py::object& prepared) {
             return std::make_unique<CalibrationWatch>(prepared_of(prepared));
           }),
           py::arg("prepared"), py::keep_alive<1, 2>())
      .def("half_way", &CalibrationWatch::half_way, py::arg("samples"), Release(),
           "After the first so many samples, about half.")
      .def(
          "finish",
          [](const CalibrationWatch& w, int64_t samples) {
            return dict_of_quality(without_gil([&] { return w.finish(samples); }));
          },
          py::arg("samples"),
          "After all of them: how much ranges moved, what they cut off, which sample sets one "
          "alone, and \"warnings\" if they are not enough.");
}

// -- doctor ---------------------------------------------------------------------------------------

py::dict dict_of_finding(const quant::DoctorFinding& f) {
  py::list cures;
  for (const quant::DoctorCure& c : f.cures) {
    py::dict d;
    d["what"] = c.what;
    d["score"] = c.score;
    d["failed"] = c.failed;
    cures.append(d);
  }
  py::dict d;
  d["cause"] = to_string(f.cause);
  d["layer"] = f.layer;
  d["sentence"] = f.sentence;
  d["suspected"] = f.suspected;
  d["before"] = f.before;
  d["after"] = f.after();
  d["gain"] = f.gain();
  d["cures"] = cures;
  d["best"] = f.best;
  d["kept"] = f.kept;
  return d;
}

py::object dict_of_data(const std::optional<quant::DataChange>& change) {
  if (!change) return py::none();
  py::dict d;
  d["what"] = change->what;
  d["scale"] = change->scale;
  d["mean"] = change->mean;
  d["std"] = change->std;
  return d;
}

void bind_doctor(py::module_& m) {
  using quant::DoctorReport;
  py::class_<DoctorReport>(m, "DoctorReport",
                           "Why accuracy dropped, and the cures that were tried.")
      .def_readonly("before", &DoctorReport::before)
      .def_readonly("after", &DoctorReport::after)
      .def_readonly("float_top1", &DoctorReport::float_top1)
      .def_readonly("before_top1", &DoctorReport::before_top1)
      .def_readonly("after_top1", &DoctorReport::after_top1)
      .def_readonly("float_top1_after", &DoctorReport::float_top1_after)
      .def_readonly("cured", &DoctorReport::cured)
      .def_readonly("graph", &DoctorReport::graph)
      .def_readonly("notes", &DoctorReport::notes)
      .def_property_readonly("data", [](const DoctorReport& r) { return dict_of_data(r.data); })
      .def_property_readonly("recipe", [](const DoctorReport& r) { return r.recipe.to_json(); })
      .def_property_readonly("findings", [](const DoctorReport& r) {
        py::list all;
        for (const quant::DoctorFinding& f : r.findings) all.append(dict_of_finding(f));
        return all;
      });
  m.def(
      "doctor",
      [](const graph::Graph& float_graph, const graph::Graph& quantized,
         const py::iterable& samples, const py::iterable& labels, double seconds, double least_gain,
         int64_t hold_out, bool saturating, const py::object& progress) {
        const Batches all = batches_of(samples, "doctor");
        std::vector<Tensor> truth;
        for (const py::handle each : labels)
          truth.push_back(tensor_of(py::reinterpret_borrow<py::object>(each)));
        const quant::DoctorOptions options{seconds, least_gain, hold_out, saturating,
                                           callback<const std::string&>(progress)};
        return without_gil(
            [&] { return quant::doctor(float_graph, quantized, all, truth, options); });
      },
      py::arg("float_graph"), py::arg("quantized"), py::arg("samples"),
      py::arg("labels") = py::tuple(), py::arg("seconds") = 120.0, py::arg("least_gain") = 0.5,
      py::arg("hold_out") = 0, py::arg("saturating") = false, py::arg("progress") = py::none(),
      "Why a quantized network lost accuracy, and which cures help. `labels`: int64, of each "
      "batch. hold_out n: each n-th sample judges only. progress(what) is called before each "
      "step.");
}

// -- recipes and tuning ---------------------------------------------------------------------------

py::list list_of(const Batches& batches) {
  py::list all;
  for (const auto& batch : batches) all.append(py::cast(batch));
  return all;
}

py::dict dict_of_trial(const quant::TuneTrial& t) {
  py::dict d;
  d["name"] = t.name;
  d["score"] = t.score;
  d["cost"] = t.cost;
  d["left_float"] = t.left_float;
  d["above"] = t.above;
  return d;
}

void bind_tune(py::module_& m) {
  using quant::TuneResult;
  py::class_<TuneResult>(m, "TuneResult", "The best quantization that trials found.")
      .def_readonly("float_score", &TuneResult::float_score)
      .def_readonly("bar", &TuneResult::bar)
      .def_readonly("notes", &TuneResult::notes)
      .def_readonly("graph", &TuneResult::graph)
      .def_property_readonly("recipe", [](const TuneResult& r) { return r.recipe.to_json(); })
      .def_property_readonly("best", [](const TuneResult& r) { return dict_of_trial(r.best()); })
      .def_property_readonly("trials", [](const TuneResult& r) {
        py::list all;
        for (const quant::TuneTrial& t : r.trials) all.append(dict_of_trial(t));
        return all;
      });
  m.def(
      "tune",
      [](const graph::Graph& graph, const py::iterable& fit, const py::iterable& judge,
         const py::object& metric, double minutes, double max_drop,
         const std::optional<double>& target, double slowest, const std::vector<std::string>& skip,
         const std::string& state, bool resume, const py::object& on_trial, bool refit) {
        quant::TuneData data{batches_of(fit, "tune"), batches_of(judge, "tune")};
        if (refit)
          data.all = [&data] {
            Batches all = data.fit;
            all.insert(all.end(), data.judge.begin(), data.judge.end());
            return all;
          };
        quant::TuneOptions options;
        if (py::isinstance<py::str>(metric)) {
          options.metric = quant::tune_metric(metric.cast<std::string>());
        } else {
          options.metric = {"python",
                            [fn = keep(metric)](const Batches& expected, const Batches& got) {
                              const Locked gil;
                              return (*fn)(list_of(expected), list_of(got)).cast<double>();
                            }};
        }
        options.minutes = minutes;
        options.max_drop = max_drop;
        options.target = target.value_or(NAN);
        options.slowest = slowest;
        options.skip = skip;
        options.state = state;
        options.resume = resume;
        if (!on_trial.is_none())
          options.on_trial = [fn = keep(on_trial)](const quant::TuneTrial& t) {
            const Locked gil;
            (*fn)(dict_of_trial(t));
          };
        return without_gil([&] { return quant::tune(graph, data, options); });
      },
      py::arg("graph"), py::arg("fit"), py::arg("judge"), py::arg("metric") = "cosine",
      py::arg("minutes") = 10.0, py::arg("max_drop") = 0.005, py::arg("target") = py::none(),
      py::arg("slowest") = 1.25, py::arg("skip") = std::vector<std::string>(),
      py::arg("state") = "", py::arg("resume") = false, py::arg("on_trial") = py::none(),
      py::arg("refit") = false,
      "The best quantization of a network, by trial. `fit`: batches that ranges are made with; "
      "`judge`: batches that trials are judged by. `metric`: cosine, sqnr, agreement, sequence, "
      "or a function of the float network's and the trial's results, lists of outputs for each "
      "batch, that gives a score. on_trial(trial) is called after each. `refit`: makes the best "
      "once more at the end, of the batches of both, fit and then judge.");
  m.def("tune_metrics", &quant::tune_metric_names);
  m.def(
      "apply_recipe",
      [](const graph::Graph& graph, const std::string& recipe, const py::object& samples) {
        const quant::Recipe parsed = quant::Recipe::from_json(recipe);
        const Batches all = samples.is_none() ? Batches() : batches_of(samples, "apply_recipe");
        return without_gil([&] { return quant::apply(graph, parsed, all); });
      },
      py::arg("graph"), py::arg("recipe"), py::arg("samples") = py::none(),
      "The quantized network that a recipe (JSON) makes of a float one.");
}

}  // namespace

void bind_debug(py::module_& m) {
  py::class_<Report>(
      m, "Comparison",
      "Float and quantized network beside each other, layer by layer; a page in notebooks.")
      .def("to_json", [](const Report& r) { return debug::to_json(r.comparison); })
      .def("to_html", [](const Report& r) { return debug::html_report(r.comparison); })
      .def("_repr_html_", [](const Report& r) { return debug::html_report(r.comparison); });
  m.def(
      "compare",
      [](const graph::Graph& a, const graph::Graph& b, const py::iterable& samples,
         const py::object& progress) {
        const Batches all = batches_of(samples, "compare");
        const debug::Samples each{static_cast<int64_t>(all.size()), 1,
                                  [&all](int64_t begin, int64_t) {
                                    return debug::SampleBatch{all[static_cast<size_t>(begin)], {}};
                                  }};
        debug::CompareOptions options;
        options.progress = callback<int64_t>(progress);
        return without_gil([&] {
          return Report{debug::compare(quant::float_counterpart(a, b, all), b, each, options)};
        });
      },
      py::arg("float_graph"), py::arg("quantized"), py::arg("samples"),
      py::arg("progress") = py::none(),
      "`samples`: a list with an input each, or a tuple of inputs. progress(n) is called after "
      "each n samples.");
  bind_explain(m);
  bind_sensitivity(m);
  bind_calibration(m);
  bind_doctor(m);
  bind_tune(m);
}

}  // namespace octet::python
