# Development targets; users need none of them.
PYTHON ?= python3
CC ?= cc
C_FILES := $(wildcard csrc/*.c)
C_HEADERS := $(wildcard csrc/*.h csrc/*/*.h csrc/*/*.inc)
LAID_OUT := $(C_FILES) $(C_HEADERS) $(wildcard tests/*/*.c)
SANITIZED := build/sanitized
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g

# The kernels in a program of their own. AArch64's need Debian's packages gcc-aarch64-linux-gnu and qemu-user-static.
NEON_CC ?= aarch64-linux-gnu-gcc
NEON_RUN ?= qemu-aarch64-static
VALGRIND := valgrind -q --error-exitcode=9
ROWS := build/rows
ROWS_FLAGS := -Wall -Wextra -Icsrc
KERNEL_FILES := $(C_FILES) $(C_HEADERS)

.PHONY: format lint strict sanitize neon valgrind fuzz bench

format:  ## Lay out the C code.
	clang-format -i $(LAID_OUT)

lint: strict  ## Nothing to say by ruff, mypy, clang-format and the C compiler.
	ruff check .
	ruff format --check .
	mypy

# Headers and templates compile alone, as an editor reads them. Nothing in them is used then, and vectors are passed
# between functions that a backend compiles for the CPU that has them.
ALONE := -std=c11 -Wall -Wextra -Werror -Wno-unused -Wno-psabi -fsyntax-only -x c

strict:  ## C warnings are errors, every C file compiles alone, and the layout is clang-format's.
	clang-format --dry-run -Werror $(LAID_OUT)
	printf '%s\n' $(C_HEADERS) | xargs -P 0 -I FILE $(CC) $(ALONE) FILE
	printf '%s\n' $(C_FILES) | \
	xargs -P 0 -I FILE $(CC) -O3 -ffp-contract=off -Wall -Wextra -Werror -c FILE -o /dev/null

# What runs kernels, parses strangers' files or makes whole files, in one process. Other tests run no code that is compiled
# here, and what measures memory, limits it or loads other libraries cannot run under ASan.
SANITIZED_TESTS := tests/kernels tests/types/test_blocks.py tests/tensors/test_expression.py tests/planning/test_families.py \
	tests/checkpoint/quantized tests/checkpoint/test_safetensors_file.py $(wildcard tests/gguf_file/test_reader*.py)

sanitize:  ## Kernels, readers and whole files under ASan and UBSan.
	FORGE_OPTIMIZE=-O1 CFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(PYTHON) setup.py -q build --build-lib $(SANITIZED)/lib --build-temp $(SANITIZED)/temp
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	PYTHONPATH=$(CURDIR)/$(SANITIZED)/lib pytest -q -p no:cacheprovider $(SANITIZED_TESTS)

neon: $(ROWS)/neon $(ROWS)/neon_fused  ## The bytes of AArch64's backends, under an emulator.
	FORGE_ROWS="$(NEON_RUN) $(ROWS)/neon" FORGE_FUSED_ROWS="$(NEON_RUN) $(ROWS)/neon_fused" pytest -q tests/emulated

valgrind: $(ROWS)/heap  ## Every read and write of the backends that valgrind can run: not AVX-512.
	FORGE_ROWS="$(VALGRIND) $(ROWS)/heap" pytest -q tests/emulated -k 'not every_case'

$(ROWS)/neon: BUILD := $(NEON_CC) -static -O3 -ffp-contract=off
$(ROWS)/neon_fused: BUILD := $(NEON_CC) -static -O3 -ffp-contract=fast
$(ROWS)/heap: BUILD := $(CC) -DON_THE_HEAP -O1 -g -ffp-contract=off
$(ROWS)/%: tests/emulated/rows.c $(KERNEL_FILES)
	mkdir -p $(ROWS)
	$(BUILD) $(ROWS_FLAGS) tests/emulated/rows.c $(C_FILES) -lm -o $@

fuzz:  ## Commands on what generators write, `make fuzz SECONDS=3600` for an hour. What is found is kept in finds/.
	$(PYTHON) tests/fuzz/harness.py $(or $(SECONDS),120)

bench:  ## Every kernel beside ggml's: about half an hour. `pytest -n 0 bench -k Q4_K` measures some.
	pytest -q -n 0 bench --benchmark-columns=median,ops
