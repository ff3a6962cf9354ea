#include "octet/base/cpu.h"

#include <sched.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

std::atomic<int> g_override{-1};

#if defined(__x86_64__)
bool has_avxvnni() {
  // GCC 12's __builtin_cpu_supports does not know AVX-VNNI: CPUID leaf 7, subleaf 1, EAX bit 4.
  unsigned a = 7, b = 0, c = 1, d = 0;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return (a & (1u << 4)) != 0 && __builtin_cpu_supports("avx2");
}
#endif

Isa from_environment() {
  if (const char* name = std::getenv("OCTET_ISA"); name && *name) {
    Isa isa{};
    try {
      isa = parse_isa(name);
    } catch (const Error& e) {
      OCTET_FAIL(invalid_argument, "OCTET_ISA: {}", e.what());
    }
    std::vector<std::string> names;
    for (Isa i : supported_isas()) names.push_back(to_string(i));
    OCTET_CHECK(cpu_supports(isa), unsupported,
                "OCTET_ISA={}: this CPU does not have it; it has {}", name, fmt::join(names, ", "));
    return isa;
  }
  return supported_isas().back();
}

// One hierarchy of cgroups: where it is mounted, and which cgroup of it is the mount's root ("/",
// or the container's).
struct CgroupMount {
  std::string root, point;
};

// mountinfo writes a space of a path as \040.
std::string unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] == '\\' && i + 3 < text.size()) {
      result += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      result += text[i];
    }
  return result;
}

bool has_item(const std::string& list, const std::string& item) {
  return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

// "36 35 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu": the hierarchies that may limit CPU
// time, version 2 and 1.
std::vector<CgroupMount> cpu_mounts(const std::filesystem::path& root, bool version2) {
  std::vector<CgroupMount> mounts;
  std::ifstream in(root / "proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash)), right(line.substr(dash + 3));
    std::vector<std::string> fields{std::istream_iterator<std::string>(left), {}};
    std::string type, source, options;
    right >> type >> source >> options;
    if (fields.size() < 5 ||
        (version2 ? type != "cgroup2" : type != "cgroup" || !has_item(options, "cpu")))
      continue;
    mounts.push_back({unescape(fields[3]), unescape(fields[4])});
  }
  return mounts;
}

// The quota of one cgroup's directory, in CPUs.
double quota_of(const std::filesystem::path& directory, bool version2) {
  double quota = 0, period = 0;
  if (version2) {
    std::string limit;  // "150000 100000", or "max 100000"
    if (!(std::ifstream(directory / "cpu.max") >> limit >> period)) period = 0;
    quota = std::strtod(limit.c_str(), nullptr);
  } else {
    std::ifstream(directory / "cpu.cfs_quota_us") >> quota;  // -1: none
    std::ifstream(directory / "cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : std::numeric_limits<double>::infinity();
}

}  // namespace

double detail::cgroup_cpus(const std::filesystem::path& root) {
  double least = std::numeric_limits<double>::infinity();
  std::ifstream in(root / "proc/self/cgroup");
  // "0::/user.slice/job" of version 2, "4:cpu,cpuacct:/job" of 1
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1),
                      path = line.substr(second + 1);
    const bool version2 = controllers.empty();
    if (!version2 && !has_item(controllers, "cpu")) continue;
    for (const CgroupMount& mount : cpu_mounts(root, version2)) {
      // Below the mount lies what the path has beyond the mount's root. Of a path that is elsewhere
      // (a container's mount of its own cgroup, seen from outside) the mount itself is all there is
      // to see.
      const std::string prefix = mount.root == "/" ? "" : mount.root;
      const bool below = path == prefix || path.rfind(prefix + "/", 0) == 0;
      const std::filesystem::path top = root / mount.point.substr(1);
      std::filesystem::path at =
          below ? top / path.substr(std::min(path.size(), prefix.size() + 1)) : top;
      if (!at.has_filename()) at = at.parent_path();
      // A cgroup is limited by all those around it too.
      for (; at.native().size() >= top.native().size(); at = at.parent_path()) {
        least = std::min(least, quota_of(at, version2));
        if (at == at.parent_path()) break;
      }
    }
  }
  return least;
}

int usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails where there are more CPUs than a cpu_set_t holds.
  const bool known = sched_getaffinity(0, sizeof set, &set) == 0;
  const double affinity =
      known ? CPU_COUNT(&set) : static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
  return std::max(1, static_cast<int>(std::min(affinity, std::ceil(detail::cgroup_cpus()))));
}

const char* to_string(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avxvnni:
      return "avxvnni";
    case Isa::avx512vnni:
      return "avx512vnni";
    case Isa::neon:
      return "neon";
    case Isa::dotprod:
      return "dotprod";
    case Isa::i8mm:
      return "i8mm";
  }
  return "?";
}

Isa parse_isa(std::string_view name) {
  std::vector<std::string> names;
  for (Isa isa : kIsas) {
    if (name == to_string(isa)) return isa;
    names.emplace_back(to_string(isa));
  }
  OCTET_FAIL(invalid_argument, "unknown instruction set '{}': expected one of {}", name,
             fmt::join(names, ", "));
}

bool cpu_supports(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return true;
#if defined(__x86_64__)
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi2");
    case Isa::avxvnni:
      return has_avxvnni();
    case Isa::avx512vnni:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    case Isa::neon:
      return true;
    case Isa::dotprod:
      return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    case Isa::i8mm:
      return cpu_supports(Isa::dotprod) && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#endif
    default:
      break;
  }
  return false;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> result;
  for (Isa isa : kIsas)
    if (cpu_supports(isa)) result.push_back(isa);
  return result;
}

Isa current_isa() {
  if (int forced = g_override.load(std::memory_order_relaxed); forced >= 0)
    return static_cast<Isa>(forced);
  static const Isa chosen = from_environment();
  return chosen;
}

void set_isa(Isa isa) {
  OCTET_CHECK(cpu_supports(isa), unsupported, "set_isa({}): this CPU does not have it",
              to_string(isa));
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
  const int cpus = usable_cpus();
  return fmt::format("{}, {} core{}, {}", model, cpus, cpus == 1 ? "" : "s",
                     to_string(current_isa()));
}

}  // namespace octet
