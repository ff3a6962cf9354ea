#include "octet/base/cpu.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/expect_error.h"

namespace octet {
namespace {

TEST(Cpu, NamesRoundTrip) {
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avxvnni, Isa::avx512vnni}) EXPECT_EQ(parse_isa(to_string(isa)), isa);
  testing::expect_error(ErrorCode::invalid_argument, {"'sse9'", "scalar", "avx2", "avxvnni", "avx512vnni"},
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
  for (Isa isa : {Isa::avx2, Isa::avxvnni, Isa::avx512vnni})
    if (!cpu_supports(isa)) testing::expect_error(ErrorCode::unsupported, {to_string(isa)}, [&] { set_isa(isa); });
}

}  // namespace
}  // namespace octet
