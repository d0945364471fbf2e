/* Packs and unpacks rows with the kernels of the machine it is built for, for tests that can't load them.
 *
 * Reads jobs until the input ends: a header, the rows, the importance if it says so. Writes what each backend
 * makes of a job, the portable one first: the packed rows (not of a job that has them packed already), the
 * values that they unpack to, and a byte for whether the rows, and what they were packed to, are finite. With
 * an argument, only the backend of that name. With --product, reads rows, ranks and columns, and two factors,
 * and writes the product that each backend makes of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "forge.h"

enum { PACKED = -1 };

typedef struct {
    int32_t type, source;   /* one of forge_source, or PACKED */
    int64_t has_importance; /* 0 or 1 */
    int64_t rows, columns, source_bytes, packed_bytes;
} job;

static void require(int holds, const char *problem)
{
    if (!holds) {
        fprintf(stderr, "%s\n", problem);
        exit(2);
    }
}

#ifdef ON_THE_HEAP /* where a memory checker knows each byte: unaligned */
static uint8_t *guarded(size_t size)
{
    uint8_t *memory = malloc(size + 1);
    require(memory != NULL, "out of memory");
    return memory + 1;
}

static void release(uint8_t *memory, size_t size)
{
    (void)size;
    free(memory - 1);
}
#else
static size_t page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static size_t mapped_size(size_t size) { return (size / page() + 2) * page(); }

/* Memory that ends where none may be touched, at any alignment. */
static uint8_t *guarded(size_t size)
{
    uint8_t *start =
        mmap(NULL, mapped_size(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(start != MAP_FAILED, "out of memory");
    uint8_t *guard = start + mapped_size(size) - page();
    require(mprotect(guard, page(), PROT_NONE) == 0, "mprotect failed");
    return guard - size;
}

static void release(uint8_t *memory, size_t size)
{
    munmap(memory + size + page() - mapped_size(size), mapped_size(size));
}
#endif

static void *read_all(size_t size)
{
    uint8_t *memory = guarded(size);
    require(fread(memory, 1, size, stdin) == size, "the input ends too early");
    return memory;
}

static void *tables_of(int type)
{
    static void *tables[64];
    const int64_t size = forge_tables_size(type);
    if (size && !tables[type]) {
        tables[type] = malloc((size_t)size);
        require(tables[type] != NULL, "out of memory");
        forge_make_tables(type, tables[type]);
    }
    return tables[type];
}

static void run(const job *j, uint8_t *source, const float *importance, int backend)
{
    const int64_t n = j->rows * j->columns;
    const size_t packed_size = (size_t)j->packed_bytes, values_size = (size_t)n * sizeof(float);
    uint8_t *packed = j->source == PACKED ? source : guarded(packed_size), *values = guarded(values_size);
    int finite;
    if (j->source != PACKED) {
        const forge_request request = {.data = source,
                                       .importance = importance,
                                       .tables = tables_of(j->type),
                                       .nrows = j->rows,
                                       .n_per_row = j->columns,
                                       .source = (enum forge_source)j->source,
                                       .search = FORGE_SEARCH_REFERENCE,
                                       .type = j->type};
        finite = forge_quantize(backend, &request, packed);
        fwrite(packed, 1, packed_size, stdout);
    } else {
        finite = forge_is_finite(backend, j->type, packed, n);
    }
    forge_dequantize(backend, j->type, packed, (float *)(void *)values, n);
    fwrite(values, 1, values_size, stdout);
    putchar(finite);
    release(values, values_size);
    if (j->source != PACKED)
        release(packed, packed_size);
}

static void write_products(void)
{
    int64_t sizes[3];
    require(fread(sizes, sizeof sizes, 1, stdin) == 1, "there are no sizes");
    const int64_t n_rows = sizes[0], n_ranks = sizes[1], n_columns = sizes[2];
    const size_t size = (size_t)(n_rows * n_columns) * sizeof(float);
    const float *b = read_all((size_t)(n_rows * n_ranks) * sizeof(float));
    const float *a = read_all((size_t)(n_ranks * n_columns) * sizeof(float));
    for (int backend = 0; forge_backend_name(backend); backend++)
        if (forge_backend_usable(backend)) {
            float *out = (float *)(void *)guarded(size);
            forge_product(backend, b, a, out, n_rows, n_ranks, n_columns);
            fwrite(out, 1, size, stdout);
        }
}

int main(int argc, char **argv)
{
    job j;
    if (argc > 1 && !strcmp(argv[1], "--product")) {
        write_products();
        return fflush(stdout) ? 2 : 0;
    }
    if (argc > 1 && !strcmp(argv[1], "--backends")) {
        for (int b = 0; forge_backend_name(b); b++)
            if (forge_backend_usable(b))
                puts(forge_backend_name(b));
        return 0;
    }
    while (fread(&j, sizeof j, 1, stdin) == 1) {
        const size_t source_size = (size_t)j.source_bytes,
                     importance_size = (size_t)j.columns * sizeof(float);
        uint8_t *source = read_all(source_size);
        uint8_t *importance = j.has_importance ? read_all(importance_size) : NULL;
        for (int b = 0; forge_backend_name(b); b++)
            if (forge_backend_usable(b) && (argc < 2 || !strcmp(argv[1], forge_backend_name(b))))
                run(&j, source, (const float *)(void *)importance, b);
        release(source, source_size);
        if (importance)
            release(importance, importance_size);
    }
    return ferror(stdin) || fflush(stdout) ? 2 : 0;
}
