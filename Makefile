# The commands of the README. The work is CMake's (CMakePresets.json); these only call it.
PRESET ?= release
JOBS ?= $(shell nproc)
build_dir = $(if $(filter release,$(PRESET)),build,build-$(PRESET))

.PHONY: build quickstart test bench format clean

build: $(build_dir)/build.ninja
	@cmake --build $(build_dir) --target octet-cli render_glyphs

# Everything for a newcomer: Debian packages, build, and the main job on the example network.
quickstart:
	@scripts/setup.sh
	@$(MAKE) --no-print-directory build
	@scripts/quickstart.sh

# All tests. `ctest --test-dir build -L perf` runs those that count instructions (valgrind), which need no quiet machine.
test:
	@scripts/setup.sh
	@$(MAKE) --no-print-directory $(build_dir)/build.ninja
	@cmake --build $(build_dir)
	@ctest --test-dir $(build_dir) --output-on-failure -j $(JOBS)

# The kernels beside the machine's ceilings, then octet and its peers in turns on the models of MODELS, which are made if they are not
# there (docs/performance.md). KERNELS is a filter of Google Benchmark's, COMPARE holds options of bench/compare.py.
MODELS ?= bench/models
KERNELS ?= .
bench: build
	@cmake --preset $(PRESET) -DOCTET_BUILD_BENCH=ON --log-level=WARNING >/dev/null
	@cmake --build $(build_dir) --target bench_kernels bench_operators bench_roofline
	@bench/models.py $(MODELS)
	@$(build_dir)/bin/bench_kernels --benchmark_filter='$(KERNELS)' --benchmark_counters_tabular=true
	@bench/compare.py $(MODELS) --bin $(build_dir)/bin $(COMPARE)

$(build_dir)/build.ninja: CMakeLists.txt CMakePresets.json cmake/toolchain.cmake
	@cmake --preset $(PRESET) --log-level=WARNING

format:
	@git ls-files '*.h' '*.cpp' | xargs clang-format -i

clean:
	@rm -rf build build-debug build-asan build-tsan
