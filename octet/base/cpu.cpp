#include "octet/base/cpu.h"

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

constexpr Isa kAll[] = {Isa::scalar, Isa::avx2, Isa::avxvnni, Isa::avx512vnni};
std::atomic<int> g_override{-1};

bool has_avxvnni() {
  // GCC 12's __builtin_cpu_supports does not know AVX-VNNI: CPUID leaf 7, subleaf 1, EAX bit 4.
  unsigned a = 7, b = 0, c = 1, d = 0;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return (a & (1u << 4)) != 0 && __builtin_cpu_supports("avx2");
}

Isa from_environment() {
  if (const char* name = std::getenv("OCTET_ISA"); name && *name) {
    Isa isa;
    try {
      isa = parse_isa(name);
    } catch (const Error& e) {
      OCTET_FAIL(invalid_argument, "OCTET_ISA: {}", e.what());
    }
    std::vector<std::string> names;
    for (Isa i : supported_isas()) names.push_back(to_string(i));
    OCTET_CHECK(cpu_supports(isa), unsupported, "OCTET_ISA={}: this CPU does not have it; it has {}", name,
                fmt::join(names, ", "));
    return isa;
  }
  return supported_isas().back();
}

}  // namespace

const char* to_string(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::avx2: return "avx2";
    case Isa::avxvnni: return "avxvnni";
    case Isa::avx512vnni: return "avx512vnni";
  }
  return "?";
}

Isa parse_isa(std::string_view name) {
  for (Isa isa : kAll)
    if (name == to_string(isa)) return isa;
  OCTET_FAIL(invalid_argument, "unknown instruction set '{}': expected one of scalar, avx2, avxvnni, avx512vnni", name);
}

bool cpu_supports(Isa isa) {
  switch (isa) {
    case Isa::scalar: return true;
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    case Isa::avxvnni: return has_avxvnni();
    case Isa::avx512vnni:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  }
  return false;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> result;
  for (Isa isa : kAll)
    if (cpu_supports(isa)) result.push_back(isa);
  return result;
}

Isa current_isa() {
  if (int forced = g_override.load(std::memory_order_relaxed); forced >= 0) return static_cast<Isa>(forced);
  static const Isa chosen = from_environment();
  return chosen;
}

void set_isa(Isa isa) {
  OCTET_CHECK(cpu_supports(isa), unsupported, "set_isa({}): this CPU does not have it", to_string(isa));
  g_override.store(static_cast<int>(isa), std::memory_order_relaxed);
}

std::string cpu_description() {
  std::string model = "unknown CPU", line;
  std::ifstream in("/proc/cpuinfo");
  while (std::getline(in, line))
    if (line.rfind("model name", 0) == 0) {
      if (auto colon = line.find(": "); colon != std::string::npos) model = line.substr(colon + 2);
      break;
    }
  return fmt::format("{}, {} cores, {}", model, std::thread::hardware_concurrency(), to_string(current_isa()));
}

}  // namespace octet
