#!/usr/bin/python3
"""One training step of the CIFAR ResNet-8, octet's and PyTorch's, in turns: medians and their ratio.

    scripts/oracle/train_step.py build/bin/bench_train_step [--threads 1 2] [--rounds 9] [--batch 64]

Run with Debian's python3 (PyTorch 1.13). Each side runs in a process of its own, so that their threads do not meet.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time


def torch_side(threads, batch, steps, channels_last):
    import torch
    from torch import nn
    torch.set_num_threads(threads)

    class Block(nn.Module):
        def __init__(self, i, o, s):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o)
            self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1), nn.BatchNorm2d(o)
            self.shortcut = nn.Conv2d(i, o, 1, s) if s > 1 else nn.Identity()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.shortcut(x) + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))

    model = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2),
                          Block(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    x, y = torch.randn(batch, 3, 32, 32), torch.arange(batch) % 10
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    times = []
    for i in range(steps + 5):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if i >= 5:
            times.append((time.perf_counter() - start) * 1e3)
    print(f"{statistics.median(times):.3f} ms, loss {loss.item():.4f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", nargs="?")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--torch", nargs=3, help=argparse.SUPPRESS)  # threads steps channels_last: this process is PyTorch's
    a = parser.parse_args()
    if a.torch:
        return torch_side(int(a.torch[0]), a.batch, int(a.torch[1]), a.torch[2] == "1")
    for threads in a.threads:
        sides = {"octet": [a.program, str(threads), str(a.batch), str(a.steps)]}
        for name, last in (("PyTorch", "0"), ("PyTorch, channels last", "1")):
            sides[name] = [sys.executable, __file__, "--batch", str(a.batch), "--torch", str(threads), str(a.steps), last]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "OCTET_NUM"))}
        times = {name: [] for name in sides}
        for _ in range(a.rounds):
            for name, command in sides.items():
                times[name].append(float(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()[0]))
        own = times["octet"]
        print(f"threads {threads}: octet {statistics.median(own):.2f} ms")
        for name in sides:
            if name != "octet":
                ratio = statistics.median(t / o for t, o in zip(times[name], own))
                print(f"threads {threads}: {name} {statistics.median(times[name]):.2f} ms, ratio {ratio:.3f}")


main()
