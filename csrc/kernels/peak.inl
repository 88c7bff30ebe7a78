// The arithmetic limit of one core, to measure kernels against.
#pragma once

#include "simd.hpp"

namespace sparsegen::SPARSEGEN_ISA {

// Chains that do not wait for each other: more than the units' latency times their number.
#if SPARSEGEN_VECTOR_BYTES == 64
constexpr index_t kChains = 24;
#else
constexpr index_t kChains = 12;
#endif

// values <- values * values[0] + values[1], `steps` times in every chain. Returns the number of floating-point
// operations. The results go to `values` (kChains vectors or more): nothing can be left out.
MultiplyAddsFn multiply_adds;
index_t multiply_adds(index_t steps, float* values) {
    constexpr index_t L = kLanes<float>;
    Vec<float> chain[kChains];
    const Vec<float> factor = broadcast(values[0]), term = broadcast(values[1]);
    for (index_t i = 0; i < kChains; ++i) chain[i] = load(values + i * L);
    for (index_t s = 0; s < steps; ++s) {
#pragma GCC unroll 24
        for (index_t i = 0; i < kChains; ++i) chain[i] = muladd(chain[i], factor, term);
    }
    for (index_t i = 0; i < kChains; ++i) store(values + i * L, chain[i]);
    return 2 * steps * kChains * L;
}

}  // namespace sparsegen::SPARSEGEN_ISA
