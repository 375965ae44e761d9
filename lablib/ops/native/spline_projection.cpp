// Coefficients of splines, (C, K), with slopes clipped to bounds: the whole numbers of projection.py (lablib/ops/splines).
#pragma GCC optimize("no-finite-math-only", "fp-contract=off")
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace {

// least, most: bounds of a difference of neighbours; room: what a coefficient may differ from the mean.
template <class F>
void project(const F* values, int64_t knots, double least, double most, double room, int bits, double margin,
             double slack, F* made, bool* passes) {
    double total = 0;
    for (int64_t k = 0; k < knots; k++) total += (double)values[k];
    const double mean = total / (double)knots;
    int exponent = 0;
    std::frexp((std::abs(mean) + room) * margin, &exponent);
    const double unit = std::ldexp(1.0, exponent - bits), scale = 1 / unit;
    double floor = std::ceil(least * scale), ceiling = std::floor(most * scale);
    if (least > 0) floor = std::max(floor, 1.0);  // where the product underflows
    if (most < 0) ceiling = std::min(ceiling, -1.0);
    double before = std::nearbyint((double)values[0] * scale), sum = 0, sums = 0;
    for (int64_t k = 1; k < knots; k++) {
        const double here = std::nearbyint((double)values[k] * scale), step = here - before;
        passes[k - 1] = step >= floor - slack && step <= ceiling + slack;
        sum += step < floor ? floor : step > ceiling ? ceiling : step;
        sums += sum;
        before = here;
    }
    double at = std::nearbyint(mean * scale - sums / (double)knots);
    if (!std::isfinite(total) || floor > ceiling) at = std::numeric_limits<double>::quiet_NaN();
    made[0] = F(at * unit);
    double largest = std::abs(at);
    before = std::nearbyint((double)values[0] * scale);
    for (int64_t k = 1; k < knots; k++) {
        const double here = std::nearbyint((double)values[k] * scale), step = here - before;
        at += step < floor ? floor : step > ceiling ? ceiling : step;
        made[k] = F(at * unit);
        largest = std::max(largest, std::abs(at));
        before = here;
    }
    if (!(largest * unit <= std::numeric_limits<F>::max()))
        std::fill_n(made, knots, std::numeric_limits<F>::quiet_NaN());
}

}  // namespace

#define EXPORTED(SUFFIX, F)                                                                                          \
    extern "C" void spline_project_##SUFFIX(const F* values, int64_t channels, int64_t knots, double least, double most, \
                                            double room, int bits, double margin, double slack, F* made, bool* passes,     \
                                            int threads) { \
        _Pragma("omp parallel for num_threads(threads) schedule(static)") for (int64_t c = 0; c < channels; c++)     \
            project(values + c * knots, knots, least, most, room, bits, margin, slack, made + c * knots,                     \
                    passes + c * (knots - 1));                                                                       \
    }

EXPORTED(f32, float)
EXPORTED(f64, double)
