// octet: quantizes neural networks and runs them in 8 bits. Each command is a file of its own beside this one.
#include <fmt/format.h>

#include "common.h"
#include "octet/base/cpu.h"
#include "octet/base/error.h"

int main(int argc, char** argv) {
  CLI::App app{"octet quantizes neural networks and runs them in 8 bits", "octet"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("octet ") + OCTET_VERSION);
  app.failure_message([](const CLI::App*, const CLI::Error& e) {
    return fmt::format("octet: error: {}; see `octet --help` or `octet COMMAND --help`\n", e.what());
  });
  octet::cli::add_quantize(app);
  octet::cli::add_eval(app);
  octet::cli::add_run(app);
  octet::cli::add_inspect(app);
  octet::cli::add_bench(app);
  octet::cli::add_convert(app);
  try {
    app.parse(argc, argv);  // runs the command's callback
    if (std::fflush(stdout) != 0) octet::fail(octet::ErrorCode::io, "cannot write to standard output");
    return 0;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    std::string message = e.what();
    for (char& c : message)
      if (c == '\n') c = ' ';
    fmt::print(stderr, "octet: error: {}\n", message);
    return 1;
  }
}
