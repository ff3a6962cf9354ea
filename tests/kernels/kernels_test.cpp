#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {
namespace {

TEST(KernelTableTest, EveryTableNamesItsIsaAndIsComplete) {
  for (Isa isa : kIsas) {
    const KernelTable& t = table(isa);
    EXPECT_EQ(t.isa, isa);
    EXPECT_GE(t.gemm_mr, 1);
    EXPECT_GE(t.gemm_nr, 1);
    EXPECT_TRUE(t.gemm_packed_bytes && t.gemm_pack && t.gemm && t.gemm_finish && t.row_sums);
    EXPECT_TRUE(t.depthwise_packed_bytes && t.depthwise_pack && t.depthwise);
    EXPECT_TRUE(t.max_pool && t.average_pool);
    EXPECT_TRUE(t.add && t.mul && t.lookup);
    EXPECT_TRUE(t.quantize && t.dequantize && t.requantize && t.quantize_nchw_to_nhwc &&
                t.transpose);
    EXPECT_TRUE(t.arithmetic && t.sum && t.softmax && t.exp_sum && t.lstm_gates && t.min_max &&
                t.histogram);
  }
}

TEST(KernelTableTest, TheTableInForceFollowsSetIsa) {
  const Isa before = current_isa();
  for (Isa isa : supported_isas()) {
    set_isa(isa);
    EXPECT_EQ(&table(), &table(isa));
  }
  set_isa(before);
}

}  // namespace
}  // namespace octet::kernels
