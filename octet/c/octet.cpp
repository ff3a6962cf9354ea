#include "octet/c/octet.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "octet/base/error.h"
#include "octet/base/parallel.h"
#include "octet/base/plugin.h"
#include "octet/base/version.h"
#include "octet/debug/calibration.h"
#include "octet/debug/check.h"
#include "octet/io/dataset.h"
#include "octet/io/load.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"

using namespace octet;

namespace {

constexpr size_t kMostDims = 8;  // of octet_output_dims

// -- types and errors -----------------------------------------------------------------------------

struct DTypeName {
  octet_dtype c;
  DType dtype;
};
constexpr DTypeName kDTypes[] = {{OCTET_FLOAT32, DType::float32}, {OCTET_FLOAT64, DType::float64},
                                 {OCTET_FLOAT16, DType::float16}, {OCTET_BFLOAT16, DType::bfloat16},
                                 {OCTET_INT64, DType::int64},     {OCTET_INT32, DType::int32},
                                 {OCTET_INT16, DType::int16},     {OCTET_INT8, DType::int8},
                                 {OCTET_UINT8, DType::uint8},     {OCTET_BOOL, DType::bool_},
                                 {OCTET_QUINT8, DType::quint8},   {OCTET_QINT8, DType::qint8},
                                 {OCTET_QINT32, DType::qint32},   {OCTET_QUINT16, DType::quint16},
                                 {OCTET_QINT16, DType::qint16},   {OCTET_UINT16, DType::uint16}};

octet_dtype to_c(DType dtype) {
  for (const DTypeName& d : kDTypes)
    if (d.dtype == dtype) return d.c;
  fail(ErrorCode::unsupported,
       fmt::format("values of {} have no type in C; dequantize them first", to_string(dtype)));
}
// An enum of C as the number that it is: a C program may put any int there, which C++ must not read
// as the enum.
template <typename Enum>
int number_of(const Enum& e) {
  int number;
  static_assert(sizeof number == sizeof e);
  std::memcpy(&number, &e, sizeof number);
  return number;
}

DType from_c(const octet_dtype& dtype, const std::string& who) {
  const int number = number_of(dtype);
  for (const DTypeName& d : kDTypes)
    if (static_cast<int>(d.c) == number) return d.dtype;
  fail(ErrorCode::invalid_argument,
       fmt::format("{}: dtype {} is none of octet_dtype", who, number));
}

octet_status to_c(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return OCTET_INVALID_ARGUMENT;
    case ErrorCode::not_found:
      return OCTET_NOT_FOUND;
    case ErrorCode::io:
      return OCTET_IO;
    case ErrorCode::corrupt:
      return OCTET_CORRUPT;
    case ErrorCode::unsupported:
      return OCTET_UNSUPPORTED;
    case ErrorCode::not_calibrated:
      return OCTET_NOT_CALIBRATED;
    case ErrorCode::internal:
      break;
  }
  return OCTET_INTERNAL;
}

std::string& error_text() {
  thread_local std::string text;
  return text;
}

std::string& warning_text() {
  thread_local std::string text;
  return text;
}

octet_status failed(octet_status status, const char* text) noexcept {
  try {
    error_text() = text;
  } catch (const std::bad_alloc&) {
    error_text().clear();  // the status still says it
  }
  return status;
}

// No exception leaves a function of C.
template <typename Fn>
octet_status guarded(Fn&& fn) noexcept {
  try {
    fn();
    return OCTET_OK;
  } catch (const Error& e) {
    return failed(to_c(e.code()), e.what());
  } catch (const std::bad_alloc&) {
    return failed(OCTET_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return failed(OCTET_INTERNAL, e.what());
  } catch (...) {
    return failed(OCTET_INTERNAL, "an exception of an unknown type");
  }
}

void need(const void* pointer, const char* what) {
  if (!pointer) fail(ErrorCode::invalid_argument, fmt::format("{} is NULL", what));
}

struct Value {
  std::string name;
  TensorType type;
  std::vector<int64_t> dims;
};

Value value_of(const graph::Graph& graph, graph::ValueId id) {
  Value v{graph.value(id).name, graph.type(id), {}};
  for (const Dim& d : v.type.dims) v.dims.push_back(d.known() ? d.size() : -1);
  return v;
}

Tensor input_tensor(const octet_array& array, const Value& wanted) {
  const std::string who = fmt::format("input {}", wanted.name);
  const DType dtype = from_c(array.dtype, who);
  if (array.rank > 0) need(array.dims, (who + ": dims").c_str());
  const Shape shape(array.dims, array.dims + array.rank);
  for (int64_t d : shape)
    if (d < 0)
      fail(ErrorCode::invalid_argument, fmt::format("{}: a size of {} is negative", who, d));
  const QuantizerPtr quantizer = is_quantized(dtype) ? wanted.type.quantizer : nullptr;
  if (is_quantized(dtype) && !quantizer)
    fail(ErrorCode::invalid_argument, fmt::format("{}: expected {}; got {}", who,
                                                  to_string(wanted.type.dtype), to_string(dtype)));
  Tensor x = Tensor::empty(shape, dtype, quantizer);
  const size_t bytes = storage_bytes(dtype, numel(shape));
  if (array.bytes != bytes)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: {} of {} are {} bytes; the array has {}", who, to_string(shape),
                     to_string(dtype), bytes, array.bytes));
  if (bytes > 0) {
    need(array.data, (who + ": data").c_str());
    std::memcpy(x.raw_data(), array.data, bytes);
  }
  return x;
}

void write_result(const Tensor& result, const std::string& name, octet_array& to) {
  const Tensor y = result.contiguous();
  const Shape shape = to.rank == 0 || to.dims ? Shape(to.dims, to.dims + to.rank) : Shape();
  const DType dtype = from_c(to.dtype, "output " + name);
  if (dtype != y.dtype() || shape != y.shape())
    fail(
        ErrorCode::invalid_argument,
        fmt::format("output {}: is {} of {}; the array is for {} of {}", name, to_string(y.shape()),
                    to_string(y.dtype()), to_string(shape), to_string(dtype)));
  const size_t bytes = storage_bytes(y.dtype(), y.numel());
  if (to.bytes < bytes)
    fail(ErrorCode::invalid_argument,
         fmt::format("output {}: takes {} bytes; the array has {}", name, bytes, to.bytes));
  if (bytes > 0) {
    need(to.data, "an output's data");
    std::memcpy(to.data, y.raw_data(), bytes);
  }
}

}  // namespace

struct octet_model {
  runtime::Program program;
  std::vector<Value> inputs, outputs;

  std::vector<Tensor> run(const octet_array* arrays, size_t count) const {
    if (count != inputs.size())
      fail(ErrorCode::invalid_argument,
           fmt::format("the model has {} inputs; got {}", inputs.size(), count));
    if (count > 0) need(arrays, "inputs");
    std::vector<Tensor> x;
    for (size_t i = 0; i < count; ++i) x.push_back(input_tensor(arrays[i], inputs[i]));
    return program.run(x);
  }
};

namespace {

void describe(const std::vector<Value>& values, size_t index, const char* kind,
              octet_value_info* info) {
  need(info, "info");
  if (index >= values.size())
    fail(ErrorCode::invalid_argument,
         fmt::format("the model has {} {}s; there is no number {}", values.size(), kind, index));
  const Value& v = values[index];
  const bool codes = v.type.quantizer && !v.type.quantizer->is_per_channel();
  *info = {v.name.c_str(),
           to_c(v.type.dtype),
           v.dims.size(),
           v.dims.data(),
           codes ? v.type.quantizer->scale() : 0,
           codes ? v.type.quantizer->zero_point() : 0};
}

void need_outputs(const octet_model& model, size_t count) {
  if (count != model.outputs.size())
    fail(ErrorCode::invalid_argument,
         fmt::format("the model has {} outputs; got {}", model.outputs.size(), count));
}

graph::Graph quantize_statically(const graph::Graph& source, const octet_quantize_options& o,
                                 std::vector<std::string>& warnings) {
  if (!o.calibration)
    fail(ErrorCode::invalid_argument,
         "static quantization chooses scales from sample inputs: set calibration");
  debug::CheckOptions options;
  options.mapping = o.mapping
                        ? quant::QConfigMapping::from_json(o.mapping)
                        : quant::get_default_qconfig_mapping(o.qconfig ? o.qconfig : "native");
  debug::Check found = debug::check(source, options);
  std::vector<InputSpec> inputs;
  for (const graph::ValueId id : source.inputs())
    inputs.push_back({source.value(id).name, source.type(id)});
  std::optional<Dataset> data;
  found.collect([&] { data = Dataset::open(o.calibration, inputs); });
  found.require_ok();
  const int64_t count = o.samples > 0 ? std::min(o.samples, data->size()) : data->size();
  const debug::CalibrationQuality quality =
      debug::calibrate(*found.prepared, {.name = o.calibration,
                                         .count = count,
                                         .fixed_batch = data->fixed_batch(),
                                         .get = [&](int64_t begin, int64_t size) {
                                           const Batch batch = data->get(begin, size);
                                           std::vector<Tensor> x;
                                           for (const InputSpec& input : inputs)
                                             x.push_back(batch.inputs.at(input.name));
                                           return x;
                                         }});
  quant::ConversionReport report;
  graph::Graph result = quant::convert_fx(found.prepared, &report)->graph();
  result.metadata["quantization"] = "static";
  result.metadata["calibration_samples"] = std::to_string(count);
  result.metadata["calibration"] = fmt::format("{} samples of {}", count, o.calibration);
  warnings = report.warnings;
  warnings.insert(warnings.end(), quality.warnings.begin(), quality.warnings.end());
  return result;
}

}  // namespace

extern "C" {

const char* octet_version(void) { return octet::version(); }

const char* octet_error_text(void) { return error_text().c_str(); }

const char* octet_warning_text(void) { return warning_text().c_str(); }

octet_status octet_load(const char* path, const char* engine, octet_model** model) {
  return guarded([&] {
    need(path, "path");
    need(model, "model");
    const graph::Graph graph = io::load_graph(path);
    runtime::CompileOptions options;
    if (engine) options.engine = engine;
    auto made =
        std::make_unique<octet_model>(octet_model{runtime::compile(graph, options), {}, {}});
    for (const graph::ValueId id : graph.inputs()) made->inputs.push_back(value_of(graph, id));
    for (const graph::ValueId id : graph.outputs()) made->outputs.push_back(value_of(graph, id));
    *model = made.release();
  });
}

void octet_free(octet_model* model) { delete model; }

size_t octet_input_count(const octet_model* model) { return model ? model->inputs.size() : 0; }
size_t octet_output_count(const octet_model* model) { return model ? model->outputs.size() : 0; }

octet_status octet_input_info(const octet_model* model, size_t index, octet_value_info* info) {
  return guarded([&] {
    need(model, "model");
    describe(model->inputs, index, "input", info);
  });
}
octet_status octet_output_info(const octet_model* model, size_t index, octet_value_info* info) {
  return guarded([&] {
    need(model, "model");
    describe(model->outputs, index, "output", info);
  });
}

octet_status octet_output_dims(const octet_model* model, const octet_array* inputs,
                               size_t input_count, int64_t (*dims)[8], size_t* ranks,
                               size_t output_count) {
  return guarded([&] {
    need(model, "model");
    need_outputs(*model, output_count);
    need(dims, "dims");
    need(ranks, "ranks");
    const std::vector<Tensor> results = model->run(inputs, input_count);
    for (size_t i = 0; i < results.size(); ++i) {
      const Shape& shape = results[i].shape();
      if (shape.size() > kMostDims)
        fail(ErrorCode::unsupported, fmt::format("output {} has {} dimensions; at most {} are told",
                                                 model->outputs[i].name, shape.size(), kMostDims));
      std::copy(shape.begin(), shape.end(), dims[i]);
      ranks[i] = shape.size();
    }
  });
}

octet_status octet_run(const octet_model* model, const octet_array* inputs, size_t input_count,
                       octet_array* outputs, size_t output_count) {
  return guarded([&] {
    need(model, "model");
    need_outputs(*model, output_count);
    if (output_count > 0) need(outputs, "outputs");
    const std::vector<Tensor> results = model->run(inputs, input_count);
    for (size_t i = 0; i < results.size(); ++i)
      write_result(results[i], model->outputs[i].name, outputs[i]);
  });
}

octet_status octet_quantize(const char* model_path, const char* output_path,
                            const octet_quantize_options* options) {
  return guarded([&] {
    warning_text().clear();
    need(model_path, "model_path");
    need(output_path, "output_path");
    if (!io::is_model_name(output_path))
      fail(ErrorCode::invalid_argument,
           fmt::format("{}: expected a name ending in .onnx or .octet", output_path));
    const octet_quantize_options o = options ? *options : octet_quantize_options{};
    const graph::Graph source = io::load_graph(model_path);
    graph::Graph result;
    std::vector<std::string> warnings;
    switch (const int mode = number_of(o.mode)) {
      case OCTET_STATIC:
        result = quantize_statically(source, o, warnings);
        break;
      case OCTET_DYNAMIC:
        result = quant::quantize_dynamic_fx(source, quant::per_channel_dynamic_qconfig());
        break;
      case OCTET_WEIGHT_ONLY:
        result = quant::quantize_weight_only_fx(source);
        break;
      default:
        fail(ErrorCode::invalid_argument, fmt::format("mode {} is none of octet_mode", mode));
    }
    if (std::filesystem::path(output_path).extension() == ".onnx")
      io::export_onnx(result, output_path);
    else
      io::save_octet(result, output_path);
    warning_text() = fmt::format("{}", fmt::join(warnings, "\n"));
  });
}

octet_status octet_set_threads(int threads) {
  return guarded([&] { set_num_threads(threads); });
}

octet_status octet_load_plugin(const char* path) {
  return guarded([&] {
    need(path, "path");
    load_plugin(path);
  });
}

}  // extern "C"
