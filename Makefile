# Development targets; users need none of them.
PYTHON ?= python3
CC ?= cc
C_FILES := $(wildcard csrc/*.c)
LAID_OUT := $(wildcard csrc/*.[ch] csrc/*.inc csrc/*/*.h tests/*/*.c)
SANITIZED := build/sanitized
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g

# AArch64's kernels on another machine: Debian's packages gcc-aarch64-linux-gnu and qemu-user-static.
NEON_CC ?= aarch64-linux-gnu-gcc
NEON_RUN ?= qemu-aarch64-static
NEON := build/neon
NEON_FLAGS := -O3 -Wall -Wextra -Wno-maybe-uninitialized -static -Icsrc
KERNEL_FILES := $(C_FILES) $(wildcard csrc/*.h csrc/*.inc csrc/*/*.h)

.PHONY: format lint strict sanitize neon

format:  ## Lay out the C code.
	clang-format -i $(LAID_OUT)

lint: strict  ## Nothing to say by ruff, mypy, clang-format and the C compiler.
	ruff check .
	ruff format --check .
	mypy

# GCC 12 takes buffers that loops fill for uninitialized ones in vector code; the sanitizers and valgrind know better.
strict:  ## C warnings are errors, and the layout is clang-format's.
	clang-format --dry-run -Werror $(LAID_OUT)
	for file in $(C_FILES); do $(CC) -O3 -ffp-contract=off -Wall -Wextra -Werror -Wno-maybe-uninitialized -c $$file -o /dev/null || exit 1; done

sanitize:  ## The kernels' tests under ASan and UBSan.
	CFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(PYTHON) setup.py -q build --build-lib $(SANITIZED)/lib --build-temp $(SANITIZED)/temp
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	PYTHONPATH=$(SANITIZED)/lib pytest -q -p no:cacheprovider tests/kernels tests/test_rows.py

neon: $(NEON)/rows $(NEON)/fused  ## The bytes of AArch64's backends, under an emulator.
	FORGE_NEON="$(NEON_RUN) $(NEON)/rows" FORGE_NEON_FUSED="$(NEON_RUN) $(NEON)/fused" pytest -q tests/neon

$(NEON)/rows: CONTRACT := off
$(NEON)/fused: CONTRACT := fast
$(NEON)/rows $(NEON)/fused: tests/neon/rows.c $(KERNEL_FILES)
	mkdir -p $(NEON)
	$(NEON_CC) $(NEON_FLAGS) -ffp-contract=$(CONTRACT) tests/neon/rows.c $(C_FILES) -lm -o $@
