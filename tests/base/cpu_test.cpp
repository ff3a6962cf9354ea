#include "octet/base/cpu.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>

#include <cmath>
#include <fstream>

#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

TEST(Cpu, NamesRoundTrip) {
  for (Isa isa : kIsas) EXPECT_EQ(parse_isa(to_string(isa)), isa);
  for (Isa isa : kIsas)
    testing::expect_error(ErrorCode::invalid_argument, {"'sse9'", to_string(isa)},
                          [] { parse_isa("sse9"); });
}

TEST(Cpu, ScalarIsAlwaysThereAndFirst) {
  auto isas = supported_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::scalar);
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
  for (Isa isa : isas) EXPECT_TRUE(cpu_supports(isa));
}

TEST(Cpu, TheCurrentIsaCanBeOverridden) {
  Isa before = current_isa();
  for (Isa isa : supported_isas()) {
    set_isa(isa);
    EXPECT_EQ(current_isa(), isa);
  }
  set_isa(before);
  EXPECT_NE(cpu_description().find(to_string(before)), std::string::npos);
}

TEST(Cpu, AnUnsupportedIsaIsAnError) {
  for (Isa isa : kIsas)
    if (!cpu_supports(isa))
      testing::expect_error(ErrorCode::unsupported, {to_string(isa)}, [&] { set_isa(isa); });
}

// -- cgroups: trees of files as Linux shows them --------------------------------------------------

// A root of its own, with these files in it.
struct Root : testing::TempDir {
  explicit Root(const std::vector<std::pair<std::string, std::string>>& files) {
    for (const auto& [name, text] : files) {
      std::filesystem::create_directories((path() / name).parent_path());
      std::ofstream(path() / name) << text;
    }
  }
  double cpus() const { return detail::cgroup_cpus(path()); }
};

const std::string kMount2 =
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string kMount1 =
    "33 32 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

TEST(CgroupCpus, NoneIsNoLimit) {
  EXPECT_EQ(Root({}).cpus(), INFINITY);
  EXPECT_EQ(Root({{"proc/self/cgroup", "0::/\n"}, {"proc/self/mountinfo", kMount2}}).cpus(),
            INFINITY);
  EXPECT_EQ(Root({{"proc/self/cgroup", "junk\n::\n0::\n"}, {"proc/self/mountinfo", "junk\n - \n"}})
                .cpus(),
            INFINITY);
}

TEST(CgroupCpus, Version2ReadsCpuMax) {
  auto limited = [](const std::string& text) {
    return Root({{"proc/self/cgroup", "0::/job\n"},
                 {"proc/self/mountinfo", kMount2},
                 {"sys/fs/cgroup/job/cpu.max", text}})
        .cpus();
  };
  EXPECT_EQ(limited("150000 100000\n"), 1.5);
  EXPECT_EQ(limited("max 100000\n"), INFINITY);
  EXPECT_EQ(limited(""), INFINITY);
}

TEST(CgroupCpus, TheLeastOfTheCgroupsAroundCounts) {
  Root outer({{"proc/self/cgroup", "0::/slice/job/step\n"},
              {"proc/self/mountinfo", kMount2},
              {"sys/fs/cgroup/slice/cpu.max", "200000 100000"},
              {"sys/fs/cgroup/slice/job/cpu.max", "400000 100000"},
              {"sys/fs/cgroup/slice/job/step/cpu.max", "max 100000"},
              {"sys/fs/cgroup/other/cpu.max", "10000 100000"}});
  EXPECT_EQ(outer.cpus(), 2);
}

TEST(CgroupCpus, Version1ReadsQuotaAndPeriod) {
  auto limited = [](const std::string& quota) {
    return Root({{"proc/self/cgroup", "5:cpuset:/\n4:cpu,cpuacct:/a/b\n0::/\n"},
                 {"proc/self/mountinfo", kMount1 + kMount2},
                 {"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", quota},
                 {"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "50000"},
                 {"sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1"},
                 {"sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000"}})
        .cpus();
  };
  EXPECT_EQ(limited("150000"), 3);
  EXPECT_EQ(limited("-1"), INFINITY);
}

TEST(CgroupCpus, AContainersMountShowsItsOwnCgroupAsTheTop) {
  const std::string mount = "30 23 0:26 /docker/abc /my\\040cgroups rw - cgroup2 cgroup2 rw\n";
  Root inside({{"proc/self/cgroup", "0::/docker/abc/job\n"},
               {"proc/self/mountinfo", mount},
               {"my cgroups/cpu.max", "300000 100000"},
               {"my cgroups/job/cpu.max", "max 100000"}});
  EXPECT_EQ(inside.cpus(), 3);
  // A process whose cgroup lies outside of what is mounted.
  Root outside({{"proc/self/cgroup", "0::/../elsewhere\n"},
                {"proc/self/mountinfo", kMount2},
                {"sys/fs/cgroup/cpu.max", "100000 100000"}});
  EXPECT_EQ(outside.cpus(), 1);
}

TEST(Cpu, UsableCpusAreAtLeastOneAndAtMostTheAffinity) {
  EXPECT_GE(usable_cpus(), 1);
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  EXPECT_LE(usable_cpus(), CPU_COUNT(&all));
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cpus(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
}

}  // namespace
}  // namespace octet
