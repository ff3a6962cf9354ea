#include "octet/io/onnx/import.h"

#include <onnx/onnx_pb.h>

#include <algorithm>

#include "octet/base/file.h"
#include "octet/base/parallel.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io {
namespace {

graph::Graph import_parsed(std::string_view bytes, const std::string& name,
                           const std::filesystem::path& dir, const OnnxImportOptions& options) {
  using namespace onnx_impl;
  std::string file = one_line(name);
  OCTET_CHECK(!bytes.empty(), corrupt, "{}: is not an ONNX model: the file is empty", file);
  OCTET_CHECK(bytes.size() < (size_t{1} << 31), unsupported,
              "{}: is larger than 2 GB; save it with external data (onnx.save(..., "
              "save_as_external_data=True))",
              file);
  onnx::ModelProto model;
  OCTET_CHECK(parse(model, bytes), corrupt, "{}: is not an ONNX model, or is truncated", file);
  try {
    return Importer(model, dir, options).run();
  } catch (const OnnxUnsupported& e) {
    throw OnnxUnsupported(fmt::format("{}: {}", file, one_line(e.what())), e.operators(), e.cure());
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", file, one_line(e.what())));
  } catch (const std::bad_alloc&) {
    OCTET_FAIL(corrupt, "{}: needs more memory than there is", file);
  } catch (const std::length_error&) {
    OCTET_FAIL(corrupt, "{}: needs more memory than there is", file);
  }
}

}  // namespace

graph::Graph import_onnx(const std::filesystem::path& path, const OnnxImportOptions& options) {
  start_threads();  // whoever reads a model will run it
  std::filesystem::path dir =
      path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  auto file = MappedFile::open(path);
  std::string_view bytes(reinterpret_cast<const char*>(file->data()), file->size());
  return import_parsed(bytes, path.string(), dir, options);
}

graph::Graph import_onnx_bytes(std::string_view bytes, const std::string& name,
                               const OnnxImportOptions& options) {
  return import_parsed(bytes, name, {}, options);
}

std::vector<std::string> onnx_operators() {
  std::vector<std::string> names;
  for (const auto& [name, handler] : onnx_impl::handlers()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace octet::io
