/* The public functions: which backends this machine can run, and the call into the chosen one.
 *
 * Compiled for the baseline of the architecture, never under a target pragma. */
#include "base.h"

extern const forge_backend forge_portable;

static const forge_backend *const backends[] = {&forge_portable};
enum { BACKENDS = sizeof backends / sizeof *backends };

/* ---- the floating-point environment: others in the process may flush denormals or round otherwise ---- */

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
typedef unsigned float_state;
static const float_state default_state = 0x1f80; /* round to nearest even, keep denormals, mask exceptions */
static float_state get_float_state(void) { return _mm_getcsr(); }
static void set_float_state(float_state state) { _mm_setcsr(state); }
#elif defined(__aarch64__)
typedef uint64_t float_state;
static const float_state default_state = 0;
static float_state get_float_state(void)
{
    float_state state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return state;
}
static void set_float_state(float_state state) { __asm__ volatile("msr fpcr, %0" : : "r"(state)); }
#else
typedef int float_state;
static const float_state default_state = 0;
static float_state get_float_state(void) { return 0; }
static void set_float_state(float_state state) { (void)state; }
#endif

static const forge_kernel *find_kernel(int backend, int type, bool quantize)
{
    const forge_kernel *kernel = &backends[backend]->kernels[type];
    const bool filled = quantize ? kernel->quantize != NULL : kernel->dequantize != NULL;
    return filled ? kernel : &forge_portable.kernels[type];
}

const char *forge_backend_name(int index)
{
    return index >= 0 && index < BACKENDS ? backends[index]->name : NULL;
}

int forge_backend_lanes(int index) { return backends[index]->lanes; }

int forge_backend_usable(int index) { return index == 0; }

int forge_can_quantize(int type)
{
    return type >= 0 && type < TYPE_COUNT && forge_portable.kernels[type].quantize != NULL;
}

int forge_can_dequantize(int type)
{
    return type >= 0 && type < TYPE_COUNT && forge_portable.kernels[type].dequantize != NULL;
}

void forge_quantize(int backend, int type, enum forge_source source, const void *src, const float *weights,
                    void *dst, int64_t nrows, int64_t n_per_row)
{
    const forge_rows rows = {src, weights, nrows, n_per_row, source};
    const float_state callers = get_float_state();
    set_float_state(default_state);
    find_kernel(backend, type, true)->quantize(&rows, dst);
    set_float_state(callers);
}

void forge_dequantize(int backend, int type, const void *src, float *dst, int64_t n)
{
    const float_state callers = get_float_state();
    set_float_state(default_state);
    find_kernel(backend, type, false)->dequantize(src, dst, n);
    set_float_state(callers);
}
