#pragma once
// Runs a program, as a shell would, and keeps what it said.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace octet::testing {

struct RunResult {
  int code = -1;   // exit status; -1 if a signal ended it
  int signal = 0;  // that signal
  std::string out, err;
};

struct RunOptions {
  std::vector<std::pair<std::string, std::string>> env;  // set on top of the test's own environment
  // standard error is a terminal of 80 columns
  bool terminal = false;
  // standard output goes to this file instead
  std::string stdout_file;
  int kill_after_ms = 0;  // SIGKILL after this long; 0: never
};

// args[0] is the program. Standard input is empty. Throws if the program cannot be started, or
// takes over 10 minutes.
inline RunResult run_process(const std::vector<std::string>& args, const RunOptions& options = {}) {
  int out[2], err[2], not_started[2];
  winsize size{};
  size.ws_row = 24;
  size.ws_col = 80;
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(not_started, O_CLOEXEC) != 0)
    throw std::runtime_error("pipe");
  if (options.terminal ? ::openpty(&err[0], &err[1], nullptr, nullptr, &size)
                       : ::pipe2(err, O_CLOEXEC))
    throw std::runtime_error("pipe or openpty");

  // Everything is made ready before the fork: between it and exec only plain system calls are safe.
  std::vector<std::string> environment;
  for (char** e = environ; *e; ++e) {
    std::string entry = *e, name = entry.substr(0, entry.find('='));
    bool replaced = false;
    for (const auto& [key, value] : options.env) replaced |= key == name;
    if (!replaced) environment.push_back(entry);
  }
  for (const auto& [key, value] : options.env) environment.push_back(key + "=" + value);
  std::vector<char*> argv, envp;
  for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  for (const std::string& e : environment) envp.push_back(const_cast<char*>(e.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);

  pid_t pid = ::fork();
  if (pid < 0) throw std::runtime_error("fork");
  if (pid == 0) {
    int in = ::open("/dev/null", O_RDONLY);
    int stdout_fd = options.stdout_file.empty()
                        ? out[1]
                        : ::open(options.stdout_file.c_str(), O_WRONLY | O_CREAT, 0666);
    ::dup2(in, 0);
    ::dup2(stdout_fd, 1);
    ::dup2(err[1], 2);
    ::execve(argv[0], argv.data(), envp.data());
    [[maybe_unused]] const ssize_t told = ::write(not_started[1], "", 1);
    ::_exit(127);
  }
  ::close(not_started[1]);
  ::close(out[1]);
  ::close(err[1]);

  RunResult result;
  auto start = std::chrono::steady_clock::now();
  bool open[2] = {true, true}, killed = false, late = false;
  while (open[0] || open[1]) {
    auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                  std::chrono::steady_clock::now() - start)
                  .count();
    late = ms > 600000;
    if (!killed && (late || (options.kill_after_ms && ms >= options.kill_after_ms))) {
      ::kill(pid, SIGKILL);
      killed = true;
    }
    pollfd fds[2] = {{open[0] ? out[0] : -1, POLLIN, 0}, {open[1] ? err[0] : -1, POLLIN, 0}};
    ::poll(fds, 2, 20);
    for (int i = 0; i < 2; ++i) {
      if (!fds[i].revents) continue;
      char buffer[4096];
      ssize_t n = ::read(fds[i].fd, buffer, sizeof buffer);
      if (n > 0)
        (i == 0 ? result.out : result.err).append(buffer, static_cast<size_t>(n));
      else
        open[i] = false;  // a terminal whose last user is gone gives EIO
    }
  }
  ::close(out[0]);
  ::close(err[0]);
  int status = 0;
  ::waitpid(pid, &status, 0);
  char byte = 0;  // exec closes the pipe of a program that starts, a shell that ends in 127 too
  const bool started = ::read(not_started[0], &byte, 1) == 0;
  ::close(not_started[0]);
  if (late) throw std::runtime_error(args[0] + " took too long");
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  if (!started) throw std::runtime_error("cannot start " + args[0]);
  return result;
}

// The octet program: what OCTET_BINARY names, "" if it was not built.
inline std::string octet_binary() {
  const char* path = std::getenv("OCTET_BINARY");
  return path ? path : "";
}

// octet ARGS..., on one thread unless the environment given says otherwise: quick also where cores
// are shared.
inline RunResult run_octet(std::vector<std::string> args, RunOptions options = {}) {
  args.insert(args.begin(), octet_binary());
  for (auto [key, value] :
       {std::pair{"OCTET_NUM_THREADS", "1"}, {"TERM", "xterm"}, {"NO_COLOR", ""}}) {
    bool given = false;
    for (const auto& e : options.env) given |= e.first == key;
    if (!given) options.env.emplace_back(key, value);
  }
  return run_process(args, options);
}

}  // namespace octet::testing

// First line of a test that runs the octet program.
#define OCTET_NEED_PROGRAM()                                             \
  if (::octet::testing::octet_binary().empty())                          \
  GTEST_SKIP() << "no program: build octet-cli and set OCTET_BINARY to " \
                  "it"
