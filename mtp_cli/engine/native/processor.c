// Which of a wheel's builds this processor can run. Compiled for every processor, so that it is
// safe to ask; the builds are in compiled.py.

// The best of them; empty for none.
const char * mtp_processor(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return "";
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return "v3";
    if (!__builtin_cpu_supports("avx512vnni")) return "v4";
    return __builtin_cpu_supports("avx512bf16") ? "v4_bf16" : "v4_vnni";
#else
    return "";
#endif
}
