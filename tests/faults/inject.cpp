#include "tests/faults/inject.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace octet::faults {
namespace {

constexpr int kCalls = static_cast<int>(Call::count_);

struct State {
  std::atomic<bool> armed{false};
  Plan plan;
  std::atomic<long> counts[kCalls] = {};
};
State g_state;
std::atomic<long> g_live{0};

// The fault of this call, if it has one.
Fault fault_of(Call call) {
  if (!g_state.armed.load(std::memory_order_relaxed)) return Fault::none;
  const long n = ++g_state.counts[static_cast<int>(call)];
  const Plan& plan = g_state.plan;
  if (call != plan.call || n < plan.nth || (n > plan.nth && !plan.on)) return Fault::none;
  return plan.fault;
}

bool is_file(int fd) {
  struct stat status {};
  const int before = errno;
  const bool file =
      ::fstat(fd, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
  errno = before;
  return file;
}

int failed(Fault fault) {
  errno = fault == Fault::no_space ? ENOSPC : fault == Fault::interrupted ? EINTR : EIO;
  return -1;
}

size_t half(size_t bytes) { return bytes > 1 ? bytes / 2 : bytes; }

// -- memory ---------------------------------------------------------------------------------------

bool memory_fails() { return fault_of(Call::allocate) != Fault::none; }

void* allocate(size_t bytes, size_t alignment) {
  if (memory_fails()) return nullptr;
  void* p = nullptr;
  if (alignment <= alignof(std::max_align_t))
    p = std::malloc(bytes ? bytes : 1);
  else if (::posix_memalign(&p, alignment, bytes ? bytes : 1) != 0)
    p = nullptr;
  if (p) ++g_live;
  return p;
}
void* allocate_or_throw(size_t bytes, size_t alignment) {
  void* p = allocate(bytes, alignment);
  if (!p) throw std::bad_alloc();
  return p;
}
void release(void* p) {
  if (!p) return;
  --g_live;
  std::free(p);
}

// -- a process that was started with a plan -------------------------------------------------------

const char* g_counts_file = nullptr;

void write_counts() {
  disarm();
  if (std::FILE* file = std::fopen(g_counts_file, "w")) {
    for (const auto& n : g_state.counts) std::fprintf(file, "%ld\n", n.load());
    std::fclose(file);
  }
}

__attribute__((constructor)) void begin() {
  g_counts_file = std::getenv("OCTET_FAULT_COUNTS");
  if (g_counts_file) std::atexit(write_counts);
  const char* text = std::getenv("OCTET_FAULT");
  int call = 0, fault = 0, on = 0;
  long nth = 1;
  if (text && std::sscanf(text, "%d %d %ld %d", &call, &fault, &nth, &on) == 4)
    arm({static_cast<Call>(call), static_cast<Fault>(fault), nth, on != 0});
}

}  // namespace

void arm(const Plan& plan) {
  g_state.armed = false;
  g_state.plan = plan;
  for (auto& n : g_state.counts) n = 0;
  g_state.armed = true;
}
long count(Call call) { return g_state.counts[static_cast<int>(call)]; }
void disarm() { g_state.armed = false; }
long live_blocks() { return g_live; }

}  // namespace octet::faults

using namespace octet::faults;

extern "C" {

ssize_t write(int fd, const void* data, size_t bytes) {
  const Fault fault = is_file(fd) ? fault_of(Call::write) : Fault::none;
  switch (fault) {
    case Fault::none:
      break;
    case Fault::short_count:
      bytes = half(bytes);
      break;
    case Fault::torn:
    case Fault::kill:
      (void)::syscall(SYS_write, fd, data, half(bytes));
      if (fault == Fault::kill) ::kill(::getpid(), SIGKILL);
      return failed(fault);
    default:
      return failed(fault);
  }
  return ::syscall(SYS_write, fd, data, bytes);
}

ssize_t read(int fd, void* data, size_t bytes) {
  const Fault fault = is_file(fd) ? fault_of(Call::read) : Fault::none;
  if (fault == Fault::short_count) bytes = half(bytes);
  if (fault != Fault::none && fault != Fault::short_count) return failed(fault);
  return ::syscall(SYS_read, fd, data, bytes);
}

ssize_t pread(int fd, void* data, size_t bytes, off_t at) {
  const Fault fault = is_file(fd) ? fault_of(Call::read) : Fault::none;
  if (fault == Fault::short_count) bytes = half(bytes);
  if (fault != Fault::none && fault != Fault::short_count) return failed(fault);
  return ::syscall(SYS_pread64, fd, data, bytes, at);
}

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if (flags & (O_CREAT | O_TMPFILE)) {
    va_list more;
    va_start(more, flags);
    mode = va_arg(more, mode_t);
    va_end(more);
  }
  if (flags & O_CREAT)
    if (const Fault fault = fault_of(Call::open); fault != Fault::none) return failed(fault);
  return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

int fsync(int fd) {
  if (const Fault fault = fault_of(Call::sync); fault != Fault::none) return failed(fault);
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

// Closed all the same, as Linux does.
int close(int fd) {
  const Fault fault = is_file(fd) ? fault_of(Call::close) : Fault::none;
  const auto result = static_cast<int>(::syscall(SYS_close, fd));
  return fault == Fault::none ? result : failed(fault);
}

int rename(const char* from, const char* to) {
  if (const Fault fault = fault_of(Call::rename); fault != Fault::none) return failed(fault);
  return static_cast<int>(::syscall(SYS_rename, from, to));
}

void* aligned_alloc(size_t alignment, size_t bytes) {
  if (memory_fails()) {
    errno = ENOMEM;
    return nullptr;
  }
  void* p = nullptr;
  return ::posix_memalign(&p, alignment, bytes) == 0 ? p : nullptr;
}

}  // extern "C"

void* operator new(size_t n) { return allocate_or_throw(n, 1); }
void* operator new[](size_t n) { return allocate_or_throw(n, 1); }
void* operator new(size_t n, std::align_val_t a) {
  return allocate_or_throw(n, static_cast<size_t>(a));
}
void* operator new[](size_t n, std::align_val_t a) {
  return allocate_or_throw(n, static_cast<size_t>(a));
}
void* operator new(size_t n, const std::nothrow_t&) noexcept { return allocate(n, 1); }
void* operator new[](size_t n, const std::nothrow_t&) noexcept { return allocate(n, 1); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, size_t) noexcept { release(p); }
void operator delete[](void* p, size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
