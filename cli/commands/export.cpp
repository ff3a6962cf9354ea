// octet export MODEL --c DIR
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "cli/common.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/text.h"
#include "octet/runtime/export_c.h"

namespace octet::cli {
namespace {

struct Options {
  std::string model, directory, name;
  bool json = false;
  ShapeOptions shape;
};

void run_export(const Options& o) {
  const runtime::CSource source = runtime::export_c(load_model(o.model, o.shape.shapes()), o.name);
  const std::filesystem::path directory = o.directory;
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    fail(ErrorCode::io, fmt::format("{}: cannot be made: {}", o.directory, error.message()));
  for (const auto& [name, text] : source.files) write_file_atomically(directory / name, text);
  if (o.json) {
    JsonValue files = JsonValue::array();
    for (const auto& [name, text] : source.files) files.push_back(name);
    JsonValue notes = JsonValue::array();
    for (const std::string& note : source.notes) notes.push_back(note);
    print_json(JsonValue::object({{"directory", o.directory},
                                  {"files", files},
                                  {"arena_bytes", source.arena_bytes},
                                  {"constant_bytes", source.constant_bytes},
                                  {"notes", notes}}));
    return;
  }
  fmt::print("{}: {}_run() in {} files; constants {}, memory {}\n", o.directory, o.name,
             source.files.size(), human_bytes(static_cast<double>(source.constant_bytes)),
             human_bytes(static_cast<double>(source.arena_bytes)));
  for (const std::string& note : source.notes) fmt::print("  {}\n", note);
}

void add_export(CommandLine& program) {
  auto o = std::make_shared<Options>();
  o->name = "network";
  Command command =
      program.add_command("export", "a quantized network as C source, of whole numbers only");
  command.add_option("MODEL", o->model, "a quantized network: .octet, or .onnx (QDQ)")
      .type_name("")
      .required();
  command.add_option("--c", o->directory, "the directory that the C files are written to")
      .type_name("DIR")
      .required();
  command.add_option("--name", o->name, "what the function and its files are called (network)")
      .type_name("NAME");
  command.add_flag("--json", o->json, "print one JSON object");
  o->shape.add_to(command);
  command.footer(
      "The files need a C99 compiler and nothing else: no floats, no library, no malloc. They\n"
      "take one sample as codes and give codes, the same as octet's to the bit.\n"
      "Example: octet export net.octet --c firmware/net");
  command.callback([o] { run_export(*o); });
}

const RegisteredCommand g_export("export", add_export);

}  // namespace
}  // namespace octet::cli
