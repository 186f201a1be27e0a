// Which of a wheel's builds this processor can run. Compiled for every processor, so that it is
// safe to ask; the builds are in compiled.py.

#if defined(__x86_64__)
#include <cpuid.h>

// Asked of the processor: a compiler whose __builtin_cpu_supports does not know the name would not
// compile this file.
static int has_avx_vnni(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}
#endif

// Their names, the best first, with spaces between; empty for none.
const char * mtp_processor(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return "";
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return has_avx_vnni() ? "v3_vnni v3" : "v3";
    if (!__builtin_cpu_supports("avx512vnni")) return "v4 v3";
    return __builtin_cpu_supports("avx512bf16") ? "v4_bf16 v4_vnni v4 v3" : "v4_vnni v4 v3";
#else
    return "";
#endif
}
