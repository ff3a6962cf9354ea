// A program that was linked with this octet, and loads a library that was linked with another.
#include <dlfcn.h>

#include <cstdio>

#include "network.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::string error;
  const double sum = run_network(&error);
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  using Next = double (*)(const void**);
  const void* version = nullptr;
  const double next = reinterpret_cast<Next>(dlsym(library, "next_octet"))(&version);
  const double again = run_network(&error);
  std::printf(
      "%g, %g, %g; %s\n", sum, next, again,
      version == reinterpret_cast<const void*>(&octet::version) ? "one octet" : "two octets");
  return sum != 0 && sum == next && sum == again && !error.empty() ? 0 : 1;
}
