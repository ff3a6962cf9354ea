// octet: quantizes neural networks and runs them in 8 bits. Each command is a file of its own
// beside this one.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>

#include "cli/common.h"
#include "cli/team.h"
#include "octet/base/cpu.h"
#include "octet/base/error.h"
#include "octet/base/text.h"
#include "octet/base/version.h"

namespace {

constexpr unsigned kPatience = 10;  // seconds

// Whatever is in a message (a file's name may hold anything), an error is one line.
int complain(int code, std::string message) {
  using octet::cli::team;
  if (team().size() > 1) {
    if (!team().is_first_to_fail()) ::sleep(kPatience);  // the one that was first ends all
    message = fmt::format("rank {} of {}: {}", team().rank(), team().size(), message);
  }
  std::replace_if(
      message.begin(), message.end(), [](char c) { return c == '\n' || c == '\r' || c == '\x1b'; },
      ' ');
  octet::cli::say_error(fmt::format("octet: error: {}", message));
  if (team().size() > 1) team().abort(code);
  return code;
}

// A program may be started with standard input, output or error closed. A file opened later would
// get its number, and what is meant for the terminal would be written into that file: the numbers
// are taken, by something that cannot be written to. Of a pipe that nobody reads any more, and of a
// file that became too large, we want the error instead of the signal.
void prepare_standard_streams() {
  for (int fd = 0; fd < 3; ++fd)
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) (void)::open("/dev/null", O_RDONLY);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
}

[[noreturn]] void fail_stdout(const std::string& reason) {
  octet::fail(octet::ErrorCode::io, fmt::format("cannot write to standard output: {}", reason));
}

// What is still in the buffer is written; results that do not arrive are an error.
void flush_stdout() {
  if (std::fflush(stdout) != 0) fail_stdout(std::strerror(errno));
  if (std::ferror(stdout)) fail_stdout("something was lost");
}

}  // namespace

int main(int argc, char** argv) {
  prepare_standard_streams();
  octet::cli::CommandLine program("octet",
                                  "octet quantizes neural networks and runs them in 8 bits.",
                                  std::string("octet ") + octet::version());
  program.footer(
      "`octet COMMAND --help` says more about each.\n\n"
      "MODEL is a file .onnx or .octet. DATA is an .npz with `images` (N x C x H x W,\n"
      "uint8 or float32) and, where accuracy is measured, `labels` (int64); or an .npz\n"
      "with one array per model input, by name; or a directory of images, or of .npy or\n"
      ".npz files, one a sample, which may differ in size where the model allows it.\n"
      "Exit status: 0 done, 1 the work failed, 2 wrong usage.");
  octet::cli::RegisteredCommand::add_all(program);
  try {
    octet::cli::start_team();
    try {
      program.run(argc, argv);
    } catch (const std::system_error& e) {
      if (std::ferror(stdout)) fail_stdout(e.code().message());
      throw;
    }
    flush_stdout();
    octet::cli::leave_team();
    return 0;
  } catch (const octet::cli::WrongUsage& e) {
    return complain(2, e.what());
  } catch (const std::bad_alloc&) {
    return complain(1,
                    "out of memory; use a smaller batch or fewer threads, or a machine with more");
  } catch (const std::exception& e) {
    return complain(1, e.what());
  }
}
