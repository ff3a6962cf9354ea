"""Codes and numbers are PyTorch's (Debian's python3-torch; skipped without it)."""
import unittest

import numpy as np

import octet

try:
    import torch
except ImportError:
    torch = None


@unittest.skipIf(torch is None, "no torch here")
class Quantized(unittest.TestCase):
    def test_per_tensor(self):
        rng = np.random.default_rng(0)
        for case in range(200):
            scale, signed = float(rng.uniform(1e-4, 2)), bool(case % 2)
            zero_point = int(rng.integers(-128, 128) if signed else rng.integers(0, 256))
            x = (rng.normal(size=(3, 17)) * scale * rng.uniform(1, 200)).astype(np.float32)
            ours = octet.quantize_per_tensor(x, scale, zero_point, octet.qint8 if signed else octet.quint8)
            theirs = torch.quantize_per_tensor(torch.from_numpy(x), scale, zero_point, torch.qint8 if signed else torch.quint8)
            np.testing.assert_array_equal(ours.int_repr().numpy(), theirs.int_repr().numpy(), f"case {case}")
            np.testing.assert_array_equal(ours.dequantize().numpy(), theirs.dequantize().numpy(), f"case {case}")
            self.assertEqual((ours.q_scale(), ours.q_zero_point()), (theirs.q_scale(), theirs.q_zero_point()))

    def test_per_channel(self):
        rng = np.random.default_rng(1)
        for case in range(120):
            axis = case % 3
            x = (rng.normal(size=(4, 5, 6)) * rng.uniform(0.1, 20)).astype(np.float32)
            scales = rng.uniform(1e-3, 1, x.shape[axis])
            zeros = rng.integers(-20, 20, x.shape[axis])
            ours = octet.quantize_per_channel(x, scales.tolist(), zeros.tolist(), axis, octet.qint8)
            theirs = torch.quantize_per_channel(torch.from_numpy(x), torch.from_numpy(scales), torch.from_numpy(zeros), axis, torch.qint8)
            np.testing.assert_array_equal(ours.int_repr().numpy(), theirs.int_repr().numpy(), f"case {case}")
            np.testing.assert_array_equal(ours.dequantize().numpy(), theirs.dequantize().numpy(), f"case {case}")

    def test_arrays_go_both_ways_without_copies(self):
        t = octet.empty([2, 3])
        shared = torch.utils.dlpack.from_dlpack(t)
        self.assertEqual(shared.data_ptr(), t.data_ptr())
        shared.fill_(3)
        self.assertEqual(t.tolist(), [[3, 3, 3], [3, 3, 3]])


if __name__ == "__main__":
    unittest.main()
