# Development targets; users need none of them.
PYTHON ?= python3
CC ?= cc
C_FILES := $(wildcard csrc/*.c)
SANITIZED := build/sanitized
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g

.PHONY: format lint strict sanitize

format:  ## Lay out the C code.
	clang-format -i csrc/*.[ch] csrc/*.inc csrc/*/*.h

lint: strict  ## Nothing to say by ruff, mypy, clang-format and the C compiler.
	ruff check .
	ruff format --check .
	mypy

# GCC 12 takes buffers that loops fill for uninitialized ones in vector code; the sanitizers and valgrind know better.
strict:  ## C warnings are errors, and the layout is clang-format's.
	clang-format --dry-run -Werror csrc/*.[ch] csrc/*.inc csrc/*/*.h
	for file in $(C_FILES); do $(CC) -O3 -ffp-contract=off -Wall -Wextra -Werror -Wno-maybe-uninitialized -c $$file -o /dev/null || exit 1; done

sanitize:  ## The kernels' tests under ASan and UBSan.
	CFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(PYTHON) setup.py -q build --build-lib $(SANITIZED)/lib --build-temp $(SANITIZED)/temp
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	PYTHONPATH=$(SANITIZED)/lib pytest -q -p no:cacheprovider tests/kernels tests/test_rows.py
