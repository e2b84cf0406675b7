/* The k nearest memory vectors of many queries: ranking and selection in one pass, without a matrix of distances.
 *
 * |q - c|^2 = |q|^2 + (|c|^2 - 2 q.c), and |q|^2 does not change the order. The products over the first `prefix`
 * channels, in bf16 if the CPU multiplies it, only nominate candidates; their distances are then computed from all
 * channels in 32-bit floats. Plain C with compiler intrinsics, no Python headers: it is loaded with ctypes and chooses
 * the instruction set at run time. Threads are OpenMP's, on Linux the same ones as torch's, so that the two do not
 * compete; compiled without OpenMP, the search runs on one thread. Sizes are int64_t: `long` has 32 bits on Windows.
 */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

enum { CHUNK = 192, PANEL_BYTES = 256 * 1024, MOST_KEPT = 64 };

/* A memory bank made ready. The vectors and their order belong to the caller. */
struct memory {
    int level;
    int64_t size, channels, prefix, split, steps, tiles;
    const float *bank;
    const int64_t *order;
    uint32_t *words;
    float *squares;
};

#ifdef X86_KERNELS

__attribute__((target("avx2,fma"))) static float total_avx2(__m256 v)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

__attribute__((target("avx2,fma"))) static float least_avx2(__m256 v)
{
    __m128 half = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_min_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_min_ss(half, _mm_movehdup_ps(half)));
}

#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define V __m256
#define LANES 8
#define ROWS 6
#define WIDE 2
#define DEPTH 6
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define SPREAD(p) _mm256_broadcast_ss((const float *)(p))
#define STEP(a, w, q) _mm256_fmadd_ps(w, q, a)
#define MARK(v, low, number)                                                                             \
    _mm256_castsi256_ps(_mm256_or_si256(                                                                 \
        _mm256_andnot_si256(_mm256_set1_epi32((int)(low)), _mm256_castps_si256(v)),                      \
        _mm256_set1_epi32((int)(number))))
#define MIN(a, b) _mm256_min_ps(a, b)
#define MAX(a, b) _mm256_max_ps(a, b)
#define ZERO() _mm256_setzero_ps()
#define ADD(a, b) _mm256_add_ps(a, b)
#define SUB(a, b) _mm256_sub_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define TOTAL(v) total_avx2(v)
#define LEAST(v) least_avx2(v)
#define FIRST_EQUAL(v, x) __builtin_ctz((unsigned)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(x), _CMP_EQ_OQ)))
#include "rank.h"

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f")))
#define SPREAD(p) _mm512_set1_ps(*(const float *)(p))
#define STEP(a, w, q) _mm512_fmadd_ps(w, q, a)
#include "avx512.h"
#include "rank.h"

#define NAME(x) x##_bf16
#define TARGET __attribute__((target("avx512f,avx512bf16")))
#define SPREAD(p) _mm512_castsi512_ps(_mm512_set1_epi32(*(const int *)(p)))
#define STEP(a, w, q) _mm512_dpbf16_ps(a, (__m512bh)(w), (__m512bh)(q))
#include "avx512.h"
#include "rank.h"

/* What the instruction sets have in common, by their number. */
static const struct {
    int64_t lanes, wide, rows, depth;
    void (*rank)(const char *, int64_t, int64_t, const char *, const float *, int64_t, int64_t, uint32_t, float *);
    float (*take)(float *, int64_t *);
    float (*distance)(const float *, const float *, int64_t);
    void (*start)(float *, const float *, const float *, float, float, int64_t);
    void (*add_between)(float *, const float *, const float *, const float *, const float *, float, float, int64_t);
} sets[] = {
    {0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL},
    {8, 2, 6, 6, rank_avx2, take_avx2, distance_avx2, start_avx2, add_between_avx2},
    {16, 4, 6, 4, rank_avx512, take_avx512, distance_avx512, start_avx512, add_between_avx512},
    {16, 4, 6, 4, rank_bf16, take_bf16, distance_bf16, start_bf16, add_between_bf16},
};

static uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

static float from_bf16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* 32-bit words of a row: a word is one float, or two numbers in bf16. Of the first `split` channels, which have the
 * largest products, bf16 keeps twice the digits: x.y is taken as high(x).high(y) + high(x).low(y) + low(x).high(y). */
static int64_t steps_of(int64_t prefix, int64_t split, int level)
{
    return level == AVX512_BF16 ? (prefix + 2 * split + 1) / 2 : prefix;
}

enum side { QUERY, MEMORY };

static void put_row(const float *row, int64_t prefix, int64_t split, float factor, int level, enum side side,
                    uint32_t *words, int64_t stride)
{
    if (level != AVX512_BF16) {
        for (int64_t i = 0; i < prefix; i++) {
            float value = factor * row[i];
            memcpy(words + i * stride, &value, sizeof value);
        }
        return;
    }
    int64_t slot = 0;
    uint32_t word = 0;
    for (int64_t i = 0; i < prefix; i++) {
        float value = factor * row[i];
        uint16_t high = to_bf16(value), part[3] = {high, high, high};
        if (i < split)
            part[side == QUERY ? 2 : 1] = to_bf16(value - from_bf16(high));
        for (int copy = 0; copy < (i < split ? 3 : 1); copy++, slot++) {
            word = slot % 2 ? word | (uint32_t)part[copy] << 16 : part[copy];
            words[slot / 2 * stride] = word;
        }
    }
}

EXPORT void hs_close(struct memory *memory)
{
    if (memory != NULL) {
        free(memory->words);
        free(memory->squares);
        free(memory);
    }
}

/* Packs `size` vectors of `channels` floats tile by tile, column i from vector order[i], and returns what was made or
 * NULL where memory could not be had. `split` is 0 unless the level multiplies in bf16.
 *
 * An order without any pattern keeps vectors that are alike, often neighbors in the bank, from meeting in one lane
 * and pushing each other out. Columns that fill up the last tile are farther than any vector.
 */
EXPORT struct memory *hs_open(const float *bank, const float *squares, const int64_t *order, int64_t size,
                              int64_t channels, int64_t prefix, int64_t split, int level)
{
    struct memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return NULL;
    int64_t tile = sets[level].lanes * sets[level].wide, tiles = (size + tile - 1) / tile;
    int64_t steps = steps_of(prefix, split, level);
    *memory = (struct memory){level, size, channels, prefix, split, steps, tiles, bank, order, NULL, NULL};
    memory->words = calloc((size_t)(tiles * tile * steps), 4);
    memory->squares = calloc((size_t)(tiles * tile), sizeof(float));
    if (memory->words == NULL || memory->squares == NULL) {
        hs_close(memory);
        return NULL;
    }
    for (int64_t column = 0; column < tiles * tile; column++) {
        memory->squares[column] = column < size ? squares[order[column]] : FLT_MAX / 4;
        if (column < size)
            put_row(bank + order[column] * channels, prefix, split, -2.0f, level, MEMORY,
                    memory->words + column / tile * tile * steps + column % tile, tile);
    }
    return memory;
}

/* The low bits of a value that hold the number of its vector of columns. */
static uint32_t number_bits(const struct memory *memory)
{
    uint32_t low = 1;
    while (low < (uint32_t)(memory->tiles * sets[memory->level].wide))
        low = low << 1 | 1;
    return low;
}

/* Fills `best` with what each lane keeps for each of at most CHUNK queries; `words` is room for the packed queries. */
static void nominate(const struct memory *memory, const float *queries, int64_t count, uint32_t *words, float *best)
{
    int level = memory->level;
    int64_t tile = sets[level].lanes * sets[level].wide, rows = sets[level].rows, steps = memory->steps;
    int64_t padded = (count + rows - 1) / rows * rows, panel = PANEL_BYTES / (tile * steps * 4);
    uint32_t low = number_bits(memory);
    panel = panel < 1 ? 1 : panel;
    memset(words, 0, (size_t)(padded * steps) * 4);
    for (int64_t row = 0; row < count; row++)
        put_row(queries + row * memory->channels, memory->prefix, memory->split, 1.0f, level, QUERY,
                words + row * steps, 1);
    for (int64_t i = 0; i < padded * sets[level].depth * sets[level].lanes; i++)
        best[i] = FLT_MAX;
    for (int64_t first = 0; first < memory->tiles; first += panel)
        sets[level].rank((const char *)words, padded, steps, (const char *)(memory->words + first * tile * steps),
                     memory->squares + first * tile, first * sets[level].wide,
                     memory->tiles - first < panel ? memory->tiles - first : panel, low, best);
}

/* Takes the nominated vectors of one query in turn and keeps the k nearest by their true distance, ascending; where
 * too few have a distance that is a number, the others are not a number. */
static void choose(const struct memory *memory, const float *query, float *kept, int candidates, int k,
                   float *distances, int64_t *columns)
{
    int level = memory->level, held = 0;
    int64_t lanes = sets[level].lanes;
    uint32_t low = number_bits(memory);
    for (int taken = 0; taken < candidates; taken++) {
        int64_t lane;
        float estimate = sets[level].take(kept, &lane);
        if (estimate >= FLT_MAX / 8)
            break;
        uint32_t bits;
        memcpy(&bits, &estimate, sizeof bits);
        int64_t column = memory->order[(int64_t)(bits & low) * lanes + lane];
        float distance = sets[level].distance(query, memory->bank + column * memory->channels, memory->channels);
        if (held == k && !(distance < distances[k - 1]))
            continue;
        int place = held < k ? held++ : k - 1;
        for (; place > 0 && distance < distances[place - 1]; place--) {
            distances[place] = distances[place - 1];
            columns[place] = columns[place - 1];
        }
        distances[place] = distance;
        columns[place] = column;
    }
    for (; held < k; held++) {
        distances[held] = NAN;
        columns[held] = 0;
    }
}

/* One level of a pyramid: a vector for each place, row by row. */
struct level {
    const float *tokens;
    int64_t height, width;
};

/* The place of a fine row or column between two coarse ones: half-pixel centers, edges repeated. */
static float between(int64_t fine, int64_t fine_length, int64_t length, int64_t *first, int64_t *second)
{
    double source = (fine + 0.5) * ((double)length / (double)fine_length) - 0.5;
    source = source < 0 ? 0 : source;
    *first = (int64_t)source < length - 1 ? (int64_t)source : length - 1;
    *second = *first + 1 < length - 1 ? *first + 1 : length - 1;
    return (float)(source - (double)*first);
}

/* Writes the sum of all levels at one place of the first: see hs_nearest. */
static void compose(const struct memory *memory, const struct level *levels, int count, const float *affine,
                    int64_t place, float *query)
{
    int64_t channels = memory->channels, height = levels->height, width = levels->width;
    int64_t row = place / width, column = place % width;
    float down = height > 1 ? 2.0f * (float)row / (float)(height - 1) - 1 : 0;
    float across = width > 1 ? 2.0f * (float)column / (float)(width - 1) - 1 : 0;
    sets[memory->level].start(query, levels->tokens + place * channels, affine, down, across, channels);
    for (int i = 1; i < count; i++) {
        int64_t top, bottom, left, right;
        float lower = between(row, height, levels[i].height, &top, &bottom);
        float later = between(column, width, levels[i].width, &left, &right);
        const float *upper_row = levels[i].tokens + top * levels[i].width * channels;
        const float *lower_row = levels[i].tokens + bottom * levels[i].width * channels;
        sets[memory->level].add_between(query, upper_row + left * channels, upper_row + right * channels,
                                        lower_row + left * channels, lower_row + right * channels, lower, later,
                                        channels);
    }
}

/* Finds the k nearest vectors for each place of a pyramid: squared distances, ascending, and their indices.
 *
 * A query is the sum of the levels, the coarser ones bilinear between their places, and of an affine function of the
 * place, given as base, change per row and change per column, both of which run from -1 to 1. Without `affine` there
 * is one level, whose vectors are the queries themselves.
 *
 * k is at most 3 and at most the size of the bank; `candidates`, at least k, are compared by their true distance.
 * Returns 0, or 1 where memory could not be had.
 */
EXPORT int hs_nearest(const struct memory *memory, const struct level *levels, int level_count, const float *affine,
                      int k, int candidates, int threads, float *distances, int64_t *columns)
{
    int64_t count = levels->height * levels->width, channels = memory->channels, rows = sets[memory->level].rows;
    int64_t kept = sets[memory->level].depth * sets[memory->level].lanes;
    int64_t share = (count / threads / 2 + rows - 1) / rows * rows;
    int64_t chunk = share < rows ? rows : share < CHUNK ? share : CHUNK;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        uint32_t *words = malloc((size_t)(CHUNK * memory->steps) * 4);
        float *best = malloc(CHUNK * MOST_KEPT * sizeof(float));
        float *sums = affine == NULL ? NULL : malloc((size_t)(CHUNK * channels) * sizeof(float));
        failed = words == NULL || best == NULL || (affine != NULL && sums == NULL);
#pragma omp for schedule(dynamic)
        for (int64_t start = 0; start < count; start += chunk) {
            int64_t here = count - start < chunk ? count - start : chunk;
            const float *queries = sums == NULL ? levels->tokens + start * channels : sums;
            if (failed)
                continue;
            for (int64_t row = 0; sums != NULL && row < here; row++)
                compose(memory, levels, level_count, affine, start + row, sums + row * channels);
            nominate(memory, queries, here, words, best);
            for (int64_t row = 0; row < here; row++)
                choose(memory, queries + row * channels, best + row * kept, candidates, k,
                       distances + (start + row) * k, columns + (start + row) * k);
        }
        free(words);
        free(best);
        free(sums);
    }
    return failed;
}

#endif

/* The instruction set that the search uses at most; the other functions exist only where it is not 0. */
EXPORT int hs_level(void)
{
    return cpu_level();
}
