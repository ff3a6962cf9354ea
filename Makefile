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

# octet and, if ORT_DIR names its package, ONNX Runtime in turns on the ONNX files of MODELS (docs/performance.md).
MODELS ?= bench/models
bench: build
	@bench/compare.py $(MODELS)

$(build_dir)/build.ninja: CMakeLists.txt CMakePresets.json cmake/toolchain.cmake
	@cmake --preset $(PRESET) --log-level=WARNING

format:
	@git ls-files '*.h' '*.cpp' | xargs clang-format -i

clean:
	@rm -rf build build-debug build-asan build-tsan
