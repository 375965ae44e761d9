// How many vector instructions a core can do at most: the ceiling that the kernels are held against.
#include "distance.h"

// Multiply-adds that wait for nothing, 24 chains on every thread; returns how many were done in all.
extern "C" double vector_peak(int64_t rounds, int threads) {
    constexpr int CHAINS = 24;
    double kept = 0;
#pragma omp parallel num_threads(threads) reduction(+ : kept)
    {
        Kind<float>::Vec a[CHAINS];
        for (int n = 0; n < CHAINS; n++) a[n] = all(float(n));
        const auto shrink = all(0.5f), shift = all(1.0f);
        for (int64_t r = 0; r < rounds; r++) UNROLL for (int n = 0; n < CHAINS; n++) {
            a[n] = a[n] * shrink + shift;
            asm volatile("" : "+x"(a[n]));  // neither folded nor moved
        }
        for (int n = 0; n < CHAINS; n++) kept += a[n][0];
    }
    return double(rounds) * CHAINS * threads + 0 * kept;
}
