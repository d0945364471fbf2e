/* The backend in plain C, with one lane. It runs everywhere, has a kernel for every type, and is what the
 * other backends are compared with. */
#include "base.h"

#include "lanes/scalar.h"

#include "kernels/table.inc"

const forge_backend forge_portable = {"portable", LANES, product, KERNEL_TABLE};
