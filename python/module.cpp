// octet._octet: what python/octet/__init__.py shows.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "octet/base/error.h"
#include "octet/base/parallel.h"
#include "octet/base/plugin.h"
#include "octet/base/version.h"
#include "octet/engine/registry.h"
#include "python/bindings.h"

namespace py = pybind11;
using namespace octet;

namespace {
constexpr ErrorCode kCodes[] = {
    ErrorCode::invalid_argument, ErrorCode::not_found,      ErrorCode::io,      ErrorCode::corrupt,
    ErrorCode::unsupported,      ErrorCode::not_calibrated, ErrorCode::internal};
ErrorCode code_of(const std::string& name) {
  for (const ErrorCode c : kCodes)
    if (name == to_string(c)) return c;
  return ErrorCode::internal;
}

PyObject* g_error = nullptr;  // octet.Error
// The last octet.Error that went through C++, and its message.
struct Passed {
  PyObject* instance = nullptr;
  std::string message;
};
thread_local Passed t_passed;
}  // namespace

// -- the end of the interpreter -------------------------------------------------------------------

// Python ends a daemon thread by unwinding it where it asks for the GIL, which no C++ with
// destructors survives, and the process ends with the destructors of what such a thread computes
// with. So no thread but the one that ends the interpreter may be in octet then.
namespace {
std::atomic<int> g_inside = 0;  // threads that are in octet and not asleep
std::atomic<bool> g_ending = false;
std::atomic<std::thread::id> g_ender;
thread_local int t_depth = 0;  // Unlocked ones of this thread that live

bool must_sleep() { return g_ending && g_ender.load() != std::this_thread::get_id(); }
[[noreturn]] void sleep() {
  if (t_depth > 0) --g_inside;
  for (;;) pause();
}

// Called at exit, with the GIL.
void end() {
  g_ender = std::this_thread::get_id();
  g_ending = true;
  PyThreadState* state = PyEval_SaveThread();
  const int mine = t_depth > 0 ? 1 : 0;
  // A callback that does not come back is left alone.
  for (int i = 0; i < 5000 && g_inside > mine; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  PyEval_RestoreThread(state);
}
}  // namespace

python::Unlocked::Unlocked() {
  if (must_sleep()) {
    PyEval_SaveThread();
    sleep();
  }
  if (t_depth++ == 0) ++g_inside;  // before others may take the GIL, and one of them ends all
  state_ = PyEval_SaveThread();
}
python::Unlocked::~Unlocked() {
  if (must_sleep()) sleep();
  PyEval_RestoreThread(state_);
  if (--t_depth == 0) --g_inside;
}
python::Locked::Locked() {
  if (must_sleep()) sleep();
  gil_.emplace();
}

void python::throw_if_ours(py::error_already_set& e) {
  if (!e.matches(g_error)) return;
  Py_XDECREF(t_passed.instance);
  t_passed = {e.value().inc_ref().ptr(), py::str(e.value()).cast<std::string>()};
  if (e.trace()) PyException_SetTraceback(t_passed.instance, e.trace().ptr());
  throw Error(code_of(e.value().attr("code").cast<std::string>()), t_passed.message);
}

PYBIND11_MODULE(_octet, m) {
  m.doc() = "octet: quantizes neural networks and runs them in 8 bits.";
  g_error = py::exception<Error>(m, "Error", PyExc_RuntimeError).release().ptr();
  py::setattr(g_error, "code", py::str(to_string(ErrorCode::internal)));  // of those Python raises
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      py::object instance = py::reinterpret_borrow<py::object>(g_error)(e.what());
      instance.attr("code") = to_string(e.code());
      if (t_passed.instance &&
          std::string_view(e.what()).find(t_passed.message) != std::string_view::npos)
        PyException_SetCause(instance.ptr(), std::exchange(t_passed.instance, nullptr));
      PyErr_SetObject(g_error, instance.ptr());
    }
  });
  py::module_::import("atexit").attr("register")(py::cpp_function(&end));
  py::module_::import("os").attr("register_at_fork")(
      py::arg("after_in_child") = py::cpp_function([] { g_inside = t_depth > 0 ? 1 : 0; }));
  m.def(
      "fail",
      [](const std::string& code, const std::string& message) {
        octet::fail(code_of(code), message);
      },
      py::arg("code"), py::arg("message"), "Raises octet.Error.");
  m.def("version", [] { return std::string(version()); });
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("get_num_threads", &num_threads);
  m.def(
      "set_engine", [](const std::string& name) { set_engine(name); }, py::arg("name"),
      "Which engine computes from now on: a name of engines(), or another name of one (fbgemm).");
  m.def("get_engine", [] { return engine(); });
  m.def("engines", [] {
    std::vector<std::string> all;
    for (const Engine* e : engines()) all.push_back(e->name());
    return all;
  });
  m.def(
      "load_plugin", [](const std::string& path) { load_plugin(path); }, py::arg("path"));
  python::bind_tensor(m);
  python::bind_functional(m);
  python::bind_graph(m);
  python::bind_nn(m);
  python::bind_training(m);
  python::bind_quantization(m);
  python::bind_debug(m);
  python::bind_algorithms(m);
  python::bind_numeric_suite(m);
  python::bind_metrics(m);
  python::bind_model_report(m);
}
