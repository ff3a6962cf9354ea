#!/usr/bin/env python3
"""Puts one fault of scripts/mutants.txt at a time into a copy of the sources, builds what it touches, and runs the tests that should
find it: killed, or survived. scripts/mutants.py [NUMBER...]

The copy is build-mutants/src (a worktree of HEAD); what was tried is in build-mutants/results and is not tried again as long as HEAD
stays the same. Ends in one line of figures; exits with 1 if a fault survived.
  OCTET_MUTANTS=10 scripts/mutants.py     ten more of those that were not tried yet
  scripts/mutants.py --check              only whether the list fits the sources
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build-mutants"
SOURCE = WORK / "src"
TIMEOUT = 600  # seconds of the tests: a loop without an end is found too


def read_list():
    text = "\n".join(line for line in (ROOT / "scripts/mutants.txt").read_text().splitlines() if not line.startswith("#"))
    mutants = []
    for block in text.strip().split("\n\n"):
        path, old, new, test = block.split("\n")
        assert old.startswith("- ") and new.startswith("+ "), block
        program, *tests = test.split()
        mutants.append((path, old[2:], new[2:], program, tests[0] if tests else "*"))
    return mutants


def call(*command, **more):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more).returncode


def git(*command):
    return subprocess.run(["git", *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def build(*targets):
    jobs = ["-j", os.environ["JOBS"]] if "JOBS" in os.environ else []
    return call("cmake", "--build", SOURCE / "build", *jobs, "--target", *targets) == 0


def targets_of(program):
    return [program, "octet-cli"] if program == "test_cli" else [program]


def passes(program, tests):
    environment = {"OCTET_NUM_THREADS": "2", "OCTET_BINARY": str(SOURCE / "build/bin/octet"), **os.environ}
    try:
        return call(SOURCE / "build/bin" / program, f"--gtest_filter={tests}:-Perf*:Data*:Ort*:Browser*", "--gtest_fail_fast",
                    cwd=SOURCE, env=environment, timeout=TIMEOUT) == 0
    except subprocess.TimeoutExpired:
        return False


def verdict(mutant, sound):
    path, old, new, program, tests = mutant
    if (program, tests) not in sound:  # what fails anyway would kill every fault
        if not build(*targets_of(program)) or not passes(program, tests):
            sys.exit(f"scripts/mutants.py: {program} --gtest_filter='{tests}' does not pass without a fault")
        sound.add((program, tests))
    file = SOURCE / path
    before = file.read_text()
    file.write_text(before.replace(old, new))
    try:
        if not build(*targets_of(program)):
            return "stillborn"  # the compiler finds it: no fault
        return "survived" if passes(program, tests) else "killed"
    finally:
        file.write_text(before)


def main():
    mutants = read_list()
    for i, (path, old, *_) in enumerate(mutants, 1):
        found = (ROOT / path).read_text().count(old)
        if found != 1:
            sys.exit(f"scripts/mutants.txt: fault {i}: {path} has '{old}' {found} times, expected once")
    if sys.argv[1:] == ["--check"]:
        return
    head = git("rev-parse", "HEAD")
    if not SOURCE.exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(SOURCE), head)
        options = ["-DOCTET_BUILD_EXAMPLES=OFF", f"-DOCTET_MPI={'ON' if shutil.which('mpirun') else 'OFF'}"]
        subprocess.run(["cmake", "--preset", "release", "--log-level=WARNING", *options], cwd=SOURCE, check=True, stdout=subprocess.DEVNULL)
    elif subprocess.run(["git", "checkout", "-f", "-q", head], cwd=SOURCE).returncode:
        sys.exit("scripts/mutants.py: build-mutants/src could not be brought to HEAD; remove build-mutants and run this again")
    results_file = WORK / "results"
    lines = results_file.read_text().splitlines() if results_file.exists() else []
    results = {int(n): what for n, what, at in (line.split() for line in lines) if at == head}
    sound = set()
    wanted = [int(n) for n in sys.argv[1:]] or [n for n in range(1, len(mutants) + 1) if n not in results]
    for n in wanted[: int(os.environ.get("OCTET_MUTANTS", len(wanted)))]:
        results[n] = verdict(mutants[n - 1], sound)
        with results_file.open("a") as file:
            file.write(f"{n} {results[n]} {head}\n")
        path, _, new, program, _ = mutants[n - 1]
        print(f"{n} {results[n]}: {path}: {new} ({program})", flush=True)
    count = {what: list(results.values()).count(what) for what in ("killed", "survived", "stillborn")}
    survivors = " ".join(str(n) for n in sorted(results) if results[n] == "survived")
    print(f"mutants: {len(results)} of {len(mutants)} tried, {count['killed']} killed, {count['survived']} survived"
          f"{': ' + survivors if survivors else ''}, {count['stillborn']} did not compile")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
