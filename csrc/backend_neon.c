/* NEON: every AArch64. */
#if defined(__aarch64__)
#include "base.h"

#include <arm_neon.h>

#include "lanes/neon.h"

#include "kernels/table.inc"

const forge_backend forge_neon = {"neon", LANES, KERNEL_TABLE};
#endif
