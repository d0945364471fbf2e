/* Plain C, one lane: runs everywhere, complete, and the reference for the other backends. */
#include "base.h"

#include "lanes/scalar.h"

#include "kernels/table.inc"

const forge_backend forge_portable = {"portable", LANES, KERNEL_TABLE};
