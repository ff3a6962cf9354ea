#!/usr/bin/env python3
"""Makes a copy of ONNX Runtime that takes the CPU for one without AVX-512 and VNNI, for a machine that has them.

    bench/ort_avx2.py ORT_DIR OUT       # then: bench/compare.py MODELS --avx2 OUT

ONNX Runtime has no setting for its instruction set. In the copy each `cpuid` instruction is a breakpoint, and the library that is
preloaded (OUT/cpuid.so) answers it with what the CPU says less AVX-512, AMX, AVX-VNNI and what comes with them. Only the
start takes longer: what was found out is kept. Needs objdump, readelf and cc.
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys

LIBRARY = "bin/napi-v*/linux/x64/libonnxruntime.so*"
CPUID, BREAKPOINT = b"\x0f\xa2", b"\xcc\x90"  # int3; nop: the handler returns to the nop

PRELOADED = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))

static void answer(int signal, siginfo_t* info, void* context) {
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint32_t leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX];
  uint32_t a = leaf, b, c = part, d;
  (void)signal, (void)info;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  if (leaf == 7 && part == 0) {
    // AVX512F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; 4VNNIW, 4FMAPS,
    // VP2INTERSECT, AMX-BF16, FP16, AMX-TILE, AMX-INT8.
    b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
    c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
    d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
  } else if (leaf == 7 && part == 1) {
    // AVX-VNNI, AVX512-BF16, AVX-IFMA; AVX-VNNI-INT8, AVX-NE-CONVERT, AVX-VNNI-INT16.
    a &= ~(BIT(4) | BIT(5) | BIT(23));
    d &= ~(BIT(4) | BIT(5) | BIT(10));
  }
  registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
}

__attribute__((constructor)) static void answer_cpuid(void) {
  struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  sigaction(SIGTRAP, &action, 0);
}
"""


def output_of(*command):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def replace_cpuid(library):
    """Returns how many there were."""
    segments = []  # (address, offset in the file, size)
    for line in output_of("readelf", "-lW", library).splitlines():
        words = line.split()
        if words and words[0] == "LOAD":
            segments.append((int(words[2], 16), int(words[1], 16), int(words[4], 16)))
    data = bytearray(library.read_bytes())
    addresses = re.findall(r"^\s*([0-9a-f]+):\t0f a2 +\tcpuid", output_of("objdump", "-d", library), re.M)
    for address in (int(a, 16) for a in addresses):
        begin, offset, _ = next(s for s in segments if s[0] <= address < s[0] + s[2])
        at = address - begin + offset
        if data[at:at + 2] != CPUID:
            sys.exit(f"ort_avx2.py: {library}: expected cpuid at {address:#x}, got {bytes(data[at:at + 2]).hex()}")
        data[at:at + 2] = BREAKPOINT
    library.write_bytes(data)
    return len(addresses)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ort_dir", type=pathlib.Path, help="the onnxruntime-node package")
    parser.add_argument("out", type=pathlib.Path, help="a new directory")
    args = parser.parse_args()
    if args.out.exists():
        sys.exit(f"ort_avx2.py: {args.out}: exists already; give a new directory")
    if not list(args.ort_dir.glob(LIBRARY)):
        sys.exit(f"ort_avx2.py: {args.ort_dir}: no libonnxruntime.so for Linux on x86-64; expected an onnxruntime-node package")
    package = args.out / "node_modules"
    shutil.copytree(args.ort_dir.resolve().parent, package)  # with the packages that it needs
    for library in sorted((package / args.ort_dir.resolve().name).glob(LIBRARY)):
        print(f"{library}: {replace_cpuid(library)} cpuid instructions")
    source = args.out / "cpuid.c"
    source.write_text(PRELOADED)
    output_of("cc", "-O2", "-shared", "-fPIC", "-o", args.out / "cpuid.so", source)


if __name__ == "__main__":
    main()
