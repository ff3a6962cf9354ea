# For builders: short names for what ./quickstart, ./test and scripts/build.sh do (`make test PRESET=asan`, `JOBS=2`), and
# the benchmarks. The work is CMake's (CMakePresets.json).
PRESET ?= release
export PRESET JOBS
build_dir = $(shell scripts/build.sh --directory)

.PHONY: build quickstart test bench docs package wheel package-test format clean fuzz fuzz-ci faults sbom arm bits soak mutants coverage sanitize reproducible s390x x86

build:
	@scripts/build.sh octet-cli render_glyphs

quickstart:
	@./quickstart

test:
	@./test

# The kernels beside the machine's ceilings, then octet and its peers in turns on the models of MODELS, which are made if they are not
# there (docs/performance.md). KERNELS is a filter of Google Benchmark's, COMPARE holds options of bench/compare.py; OCTET_REAL names a
# directory of real networks (bench/real.py).
MODELS ?= bench/models
KERNELS ?= .
bench: build
	@cmake --preset $(PRESET) -DOCTET_BUILD_BENCH=ON --log-level=WARNING >/dev/null
	@cmake --build $(build_dir) --target bench_kernels bench_operators bench_roofline
	@bench/models.py $(MODELS)
	@bench/real.py $(MODELS) --bin $(build_dir)/bin
	@$(build_dir)/bin/bench_kernels --benchmark_filter='$(KERNELS)' --benchmark_counters_tabular=true
	@bench/compare.py $(MODELS) --bin $(build_dir)/bin $(COMPARE)

# The site in build/docs/site: the pages of docs/ and the reference of the headers.
docs:
	@scripts/setup.sh docs
	@mkdir -p build/docs
	@mkdocs build --strict --quiet
	@doxygen docs/Doxyfile
	@echo "docs: build/docs/site/index.html"

# Debian packages and a .tar.gz, in build-package/packages.
package: PRESET = package
package:
	@scripts/setup.sh python package
	@scripts/build.sh
	@cd "$$(scripts/build.sh --directory)" && cpack -B packages && rm -rf packages/_CPack_Packages

# The Python package as a wheel, in build-package/packages.
wheel: PRESET = package
wheel:
	@scripts/setup.sh python
	@scripts/build.sh octet_python
	@python/wheel.py "$$(scripts/build.sh --directory)" build-package/packages

# Builds octet as a static library and as a part of another project, in the folder OCTET_BUILDS; installs and uses the packages, and runs
# the steps of the Dockerfile and of the devcontainer, in bare Debian 12 systems in the folder OCTET_CHROOT; takes debootstrap, root and
# five more builds.
package-test: export OCTET_CHROOT ?= /var/tmp/octet-chroot
package-test: export OCTET_BUILDS ?= /var/tmp/octet-builds
package-test: package
	@tests/package/builds.sh
	@mkdir -p "$$OCTET_CHROOT"
	@tests/package/debian.sh build-package/packages
	@tests/package/docker.sh Dockerfile
	@tests/package/docker.sh devcontainer

# docs/trust.md. FUZZERS names some of the fuzzers, ROUNDS says how many faults of each kind (300), JOBS how many run at a time; each of
# these ends in one line of figures.
fuzz:
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh 600 $(FUZZERS)
fuzz-ci:
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh 30 $(FUZZERS)
faults:
	@scripts/faults.sh $(ROUNDS)

# CASES random calls, and a hundredth as many networks; SEED gives others.
bits:
	@scripts/bits.sh $(CASES) $(SEED)
# 16 threads on 8 networks that come and go, for MINUTES; RATE runs a second, 0 for as many as there can be.
MINUTES ?= 2
RATE ?= 0
soak:
	@scripts/build.sh soak
	@$(build_dir)/bin/soak $$(($(MINUTES) * 60)) $(RATE)
# Faults put into the sources one at a time (scripts/mutants.txt): the tests must find each. OCTET_MUTANTS says how many of those left,
# MUTANTS which ones.
mutants:
	@scripts/mutants.py $(MUTANTS)
coverage:
	@scripts/setup.sh coverage
	@scripts/coverage.sh $(PROGRAMS)
# The tests under AddressSanitizer and UBSan; SANITIZER=tsan under ThreadSanitizer.
sanitize:
	@scripts/setup.sh
	@scripts/sanitize.sh $(PROGRAMS)
# Two clones, built from nothing in two folders: the same bytes. OCTET_FLOOR=base compares one floor's objects.
reproducible:
	@scripts/reproducible.sh

# Under QEMU: the library and tests cross-compiled for 64-bit Arm, kernels and engines with each table, and for s390x, which is
# big-endian; this machine's build as on x86 CPUs without AVX2, and without more than that. PROGRAMS names some test programs.
arm s390x x86:
	@scripts/setup.sh $@
	@scripts/cross.sh $@ $(PROGRAMS)

# The bill of materials of the library that was built, in SPDX.
sbom: build
	@scripts/sbom.py $(build_dir)/lib/liboctet.so -o $(build_dir)/octet.spdx.json

format:
	@scripts/format.sh

clean:
	@rm -rf build build-debug build-asan build-tsan build-fuzz build-package build-arm build-s390x build-coverage build-mutants
