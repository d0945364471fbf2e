/* The public functions of forge.h: they find out which backends this machine can run, and call the kernel
 * of the chosen one.
 *
 * This file is compiled for the baseline of the architecture, never under a target pragma. */
#include "base.h"
#include "codes.h"
#include "exp.h"

extern const forge_backend forge_portable, forge_avx2, forge_avx512, forge_neon;

/* ---- what this machine can run ---- */

#if defined(__x86_64__)
#include <cpuid.h>

typedef struct {
    uint32_t a, b, c, d;
} registers;

static registers cpuid(uint32_t leaf)
{
    registers r = {0, 0, 0, 0};
    __get_cpuid_count(leaf, 0, &r.a, &r.b, &r.c, &r.d);
    return r;
}

/* The bits of XCR0: which register files the operating system saves when it switches threads. */
static uint64_t saved_state(void)
{
    if (!(cpuid(1).c >> 27 & 1)) /* OSXSAVE */
        return 0;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* The bits of CPUID are from the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A. */
static bool runs_avx2(void)
{
    const bool saved = (saved_state() & 0x06) == 0x06; /* XMM, YMM */
    const registers one = cpuid(1), seven = cpuid(7);
    return saved && (one.c >> 28 & 1) /* AVX */ && (one.c >> 29 & 1) /* F16C */ &&
           (seven.b >> 5 & 1) /* AVX2 */;
}

static bool runs_avx512(void)
{
    const bool saved = (saved_state() & 0xe6) == 0xe6;                 /* XMM, YMM, opmask, ZMM */
    const uint32_t needed = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    return saved && runs_avx2() && (cpuid(7).b & needed) == needed;
}
#elif defined(__aarch64__)
static bool runs_neon(void) { return true; }
#endif

static bool runs_anywhere(void) { return true; }

static const struct {
    const forge_backend *backend;
    bool (*runs)(void);
} backends[] = {
    {&forge_portable, runs_anywhere},
#if defined(__x86_64__)
    {&forge_avx2, runs_avx2},
    {&forge_avx512, runs_avx512},
#elif defined(__aarch64__)
    {&forge_neon, runs_neon},
#endif
};
enum { BACKENDS = sizeof backends / sizeof *backends };

/* ---- the floating-point environment: the calling process may flush denormals or round otherwise ---- */

#if defined(__x86_64__)
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

static bool can_quantize(const forge_kernel *kernel) { return kernel->quantize || kernel->quantize_checked; }

static const forge_kernel *find_kernel(int backend, int type, bool quantize)
{
    const forge_kernel *kernel;
    do
        kernel = &backends[backend].backend->kernels[type];
    while (!(quantize ? can_quantize(kernel) : kernel->dequantize != NULL) && backend-- > 0);
    return kernel;
}

const char *forge_backend_name(int index)
{
    return index >= 0 && index < BACKENDS ? backends[index].backend->name : NULL;
}

int forge_backend_lanes(int index) { return backends[index].backend->lanes; }

int forge_backend_usable(int index) { return backends[index].runs(); }

int forge_can_quantize(int type)
{
    return type >= 0 && type < TYPE_COUNT && can_quantize(&forge_portable.kernels[type]);
}

int forge_can_dequantize(int type)
{
    return type >= 0 && type < TYPE_COUNT && forge_portable.kernels[type].dequantize != NULL;
}

/* Source: ggml_quantize_requires_imatrix in ggml.c. */
int forge_needs_importance(int type)
{
    return type == TYPE_IQ2_XXS || type == TYPE_IQ2_XS || type == TYPE_IQ1_S;
}

static bool quantize(int backend, const forge_request *request, void *dst)
{
    static const int types[] = {[FORGE_F32] = TYPE_F32, [FORGE_F16] = TYPE_F16, [FORGE_BF16] = TYPE_BF16};
    const forge_kernel *kernel = find_kernel(backend, request->type, true);
    if (kernel->quantize_checked)
        return kernel->quantize_checked(request, dst);
    const int64_t n = request->nrows * request->n_per_row;
    /* Looked at first, the rows are in the cache when they are packed. */
    const bool finite = forge_is_finite(backend, types[request->source], request->data, n);
    kernel->quantize(request, dst);
    return finite && forge_is_finite(backend, request->type, dst, n);
}

int forge_quantize(int backend, const forge_request *request, void *dst)
{
    const float_state callers = get_float_state();
    set_float_state(default_state);
    const bool finite = quantize(backend, request, dst);
    set_float_state(callers);
    return finite;
}

void forge_dequantize(int backend, int type, const void *src, float *dst, int64_t n)
{
    const float_state callers = get_float_state();
    set_float_state(default_state);
    find_kernel(backend, type, false)->dequantize(src, dst, n);
    set_float_state(callers);
}

void forge_unpack_codes(const forge_codes *request, uint8_t *dst) { unpack_codes(request, dst); }

void forge_scale_codes(const forge_scaled *request, float *dst)
{
    const float_state callers = get_float_state();
    set_float_state(default_state);
    scale_codes(request, dst);
    set_float_state(callers);
}

int forge_is_finite(int backend, int type, const void *src, int64_t n)
{
    return find_kernel(backend, type, false)->finite(src, n);
}

void forge_product(int backend, const float *b, const float *a, float *dst, int64_t n_rows, int64_t n_ranks,
                   int64_t n_columns)
{
    const float_state callers = get_float_state();
    set_float_state(default_state);
    backends[backend].backend->product(b, a, dst, n_rows, n_ranks, n_columns);
    set_float_state(callers);
}

void forge_exp(const float *x, float *dst, int64_t n)
{
    const float_state callers = get_float_state();
    set_float_state(default_state);
    exp_floats(x, dst, n);
    set_float_state(callers);
}
