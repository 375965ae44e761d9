// How many vector instructions a core can do at most: the ceiling that the kernels are held against.
#include "distance.h"

#if defined(__x86_64__)
#define HELD "+v"  // any vector register, also those that only AVX-512 has
#else
#define HELD "+w"
#endif

// Instructions that wait for nothing, 16 chains on every thread, `FUSED` of each four multiply-adds and the
// others sums: cores have pipes for each, so that a mix does more than either. Returns how many were done in all.
template <int FUSED> double chains(int64_t rounds, int threads) {
    constexpr int CHAINS = 16;  // no more than UNROLL unrolls, so that all stay in registers
    double kept = 0;
#pragma omp parallel num_threads(threads) reduction(+ : kept)
    {
        Kind<float>::Vec a[CHAINS];
        UNROLL for (int n = 0; n < CHAINS; n++) a[n] = all(float(n));
        const auto shrink = all(0.5f), shift = all(1.0f);
        for (int64_t r = 0; r < rounds; r++) UNROLL for (int n = 0; n < CHAINS; n++) {
            if (n % 4 < FUSED) a[n] = a[n] * shrink + shift;
            else a[n] = a[n] + shift;
            asm volatile("" : HELD(a[n]));  // neither folded nor moved
        }
        UNROLL for (int n = 0; n < CHAINS; n++) kept += a[n][0];
    }
    return double(rounds) * CHAINS * threads + 0 * kept;
}

extern "C" double vector_peak(int64_t rounds, int threads, int fused) {
    return fused == 4 ? chains<4>(rounds, threads) : fused == 2 ? chains<2>(rounds, threads) : chains<0>(rounds, threads);
}
