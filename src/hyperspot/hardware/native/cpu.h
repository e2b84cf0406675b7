/* What kernels.c and resize.c share: exported functions, and the instruction sets of this CPU.
 *
 * GCC and clang compile one function for AVX2 or AVX-512 inside a library for any x86-64. MSVC's cl has no such
 * attribute, so with it, as on ARM, the instruction set is always `none`; on Windows use clang or MinGW's gcc.
 */
#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT
#endif

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define X86_KERNELS
#include <cpuid.h>
#include <immintrin.h>
#endif

enum { NONE, AVX2, AVX512, AVX512_BF16 };

/* The best of them that the CPU and the operating system support. `__builtin_cpu_supports` would need a run-time
 * library that clang does not link on Windows. */
static int cpu_level(void)
{
#ifdef X86_KERNELS
    enum { FMA_BIT = 1 << 12, OSXSAVE_BIT = 1 << 27, AVX2_BIT = 1 << 5, AVX512F_BIT = 1 << 16, BF16_BIT = 1 << 5 };
    enum { AVX_STATE = 0x06, AVX512_STATE = 0xE6 };
    unsigned a, b, c, d, features, unused;
    if (!__get_cpuid(1, &a, &b, &features, &d) || !(features & OSXSAVE_BIT))
        return NONE;
    unsigned saved;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    if ((saved & AVX_STATE) != AVX_STATE || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return NONE;
    if ((saved & AVX512_STATE) == AVX512_STATE && b & AVX512F_BIT) {
        unsigned subleaves = a;
        if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & BF16_BIT)
            return AVX512_BF16;
        return AVX512;
    }
    return b & AVX2_BIT && features & FMA_BIT ? AVX2 : NONE;
#else
    return NONE;
#endif
}
