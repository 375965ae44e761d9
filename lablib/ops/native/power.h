// How |d|^p is computed, and what the kernels return.
#pragma once
#include <type_traits>

#include "distance.h"

namespace {

enum { DONE = 0, NOT_FINITE = 1, BAD_MASK = 2, NO_MEMORY = 3 };

struct Power {
    enum Way { ONE, CUBE, SQUARES, REAL };
    double p;
    Way way;
    int k;       // SQUARES: p = 2^k or, with three, 3 2^k; 1 <= k <= 12
    bool three;

    // Squaring is for float32; float64 is for checks, where compile time counts more.
    Power(double p_, bool squares) : p(p_), way(p_ == 1 ? ONE : squares && p_ == 3 ? CUBE : REAL), k(0), three(false) {
        for (int j = 1; squares && j <= 12; j++)
            for (int odd = 1; odd <= 3; odd += 2)
                if (p == std::ldexp(double(odd), j)) way = SQUARES, k = j, three = odd == 3;
    }
};

// Calls run(std::integral_constant<int, n>), n + 1 the squarings of |d|; n = -1 where p is no such power.
template <class F, class Run> void dispatch_squares(const Power& power, Run run) {
#define CASE(N) case N: return run(std::integral_constant<int, N>())
    if constexpr (sizeof(F) == 4)
        switch (power.way == Power::SQUARES ? power.k - 1 : -1) {
            CASE(0); CASE(1); CASE(2); CASE(3); CASE(4); CASE(5);
            CASE(6); CASE(7); CASE(8); CASE(9); CASE(10); CASE(11);
        }
    run(std::integral_constant<int, -1>());
#undef CASE
}

// A power of two s for which the sum of up to 2^18 terms ((a + b) / s)^p does not overflow (dividing by s is exact);
// 0 where there is none.
template <class F> F common_scale(F a, F b, double p) {
    const double size = double(a) + double(b), limit = sizeof(F) == 4 ? 120 : 1000;
    if (!(size > 0)) return 0;
    const double exponent = std::ceil(std::log2(size) - Bits<F>::SUM_MOST / p);
    return std::abs(exponent) < limit ? F(std::exp2(exponent)) : F(0);
}

// From these powers on most pairs lie so far below the largest difference that it pays to look before raising them.
// Looking needs an instruction that tells whether any lane is set.
constexpr bool CAN_LOOK = VECTOR_BYTES >= 32;
constexpr double NEAR_FORWARD = 512, NEAR_BACKWARD = 256, NEAR_REAL = 24;

inline bool near_only(const Power& power, double from) {
    return CAN_LOOK && power.p >= (power.way == Power::SQUARES ? from : NEAR_REAL);
}

}  // namespace
