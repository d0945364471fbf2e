/* The backend for NEON, which every AArch64 CPU has. */
#if defined(__aarch64__)
#include "base.h"

#include <arm_neon.h>

#include "lanes/neon.h"

#include "kernels/table.inc"

const forge_backend forge_neon = {"neon", LANES, product, KERNEL_TABLE};
#endif
