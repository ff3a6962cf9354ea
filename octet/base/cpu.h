#pragma once
// The instruction sets octet has kernels for, and which of them this CPU runs.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

// Those of x86-64 and those of 64-bit Arm (NEON, which all have; with dot products of signed bytes;
// with those of unsigned and signed bytes), each ordered from plainest to fastest. Every one gives
// identical results.
enum class Isa { scalar, avx2, avxvnni, avx512vnni, neon, dotprod, i8mm };

// Those of the architecture that octet was built for, plainest first.
#if defined(__x86_64__)
inline constexpr Isa kIsas[] = {Isa::scalar, Isa::avx2, Isa::avxvnni, Isa::avx512vnni};
#elif defined(__aarch64__)
inline constexpr Isa kIsas[] = {Isa::scalar, Isa::neon, Isa::dotprod, Isa::i8mm};
#else
inline constexpr Isa kIsas[] = {Isa::scalar};
#endif

const char* to_string(Isa isa);

// Parses the name of one of kIsas ("scalar", "avx2"); another name is an Error that lists these.
Isa parse_isa(std::string_view name);

// Whether this CPU (and operating system) can run the instructions.
bool cpu_supports(Isa isa);

// All the CPU supports, plainest first; never empty.
std::vector<Isa> supported_isas();

// The ISA in force: the fastest supported one, or what the environment variable OCTET_ISA names.
// Error if OCTET_ISA names an unknown or unsupported one.
Isa current_isa();

// Overrides the ISA for the process (tests run every table). Kernels made earlier keep theirs.
// Thread-safe.
void set_isa(Isa isa);

// How many CPUs' worth of time the process may use, at least 1: the CPUs that the calling thread
// may run on, or the quota of its cgroup and of the cgroups around it (cpu.max, cpu.cfs_quota_us)
// if that is less, rounded up.
int usable_cpus();

namespace detail {
// The quota in CPUs (1.5: three CPUs half of the time); infinite if there is none. `root` stands
// for "/": tests have trees of their own.
double cgroup_cpus(const std::filesystem::path& root = "/");
}  // namespace detail

// One line for humans: "AMD EPYC, 2 cores, avx512vnni".
std::string cpu_description();

}  // namespace octet
