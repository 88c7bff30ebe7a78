// Vectors of one register through the compiler's vector extensions: + - * / work on them as they are.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.hpp"

namespace sparsegen::SPARSEGEN_ISA {

template <typename T>
struct Simd;
template <>
struct Simd<float> {
    typedef float type __attribute__((vector_size(SPARSEGEN_VECTOR_BYTES)));
    typedef float unaligned __attribute__((vector_size(SPARSEGEN_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct Simd<double> {
    typedef double type __attribute__((vector_size(SPARSEGEN_VECTOR_BYTES)));
    typedef double unaligned __attribute__((vector_size(SPARSEGEN_VECTOR_BYTES), aligned(8), may_alias));
};

template <typename T>
using Vec = typename Simd<T>::type;

template <typename T>
constexpr index_t kLanes = SPARSEGEN_VECTOR_BYTES / static_cast<index_t>(sizeof(T));

// Smallest multiple of the vector length that holds n elements.
template <typename T>
inline index_t padded(index_t n) {
    return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

template <typename T>
inline Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename Simd<T>::unaligned*>(p);
}
template <typename T>
inline void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename Simd<T>::unaligned*>(p) = v;
}
template <typename T>
inline Vec<T> broadcast(T x) {
    return x - Vec<T>{};
}

// a < b ? a : b, so a NaN in a is never chosen: the definition of the min instructions.
template <typename T>
inline T least(T a, T b) {
    return a < b ? a : b;
}
#if SPARSEGEN_VECTOR_BYTES == 64
inline Vec<float> least(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm512_min_ps((__m512)a, (__m512)b); }
inline Vec<double> least(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm512_min_pd((__m512d)a, (__m512d)b); }
#elif SPARSEGEN_VECTOR_BYTES == 32
inline Vec<float> least(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm256_min_ps((__m256)a, (__m256)b); }
inline Vec<double> least(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm256_min_pd((__m256d)a, (__m256d)b); }
#elif defined(__SSE2__)
inline Vec<float> least(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm_min_ps((__m128)a, (__m128)b); }
inline Vec<double> least(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm_min_pd((__m128d)a, (__m128d)b); }
#endif

// The fused a * b + c where the machine has it; for kernels that do not promise bit-equal results.
#if SPARSEGEN_VECTOR_BYTES == 64
inline Vec<float> muladd(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
inline Vec<double> muladd(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif SPARSEGEN_VECTOR_BYTES == 32
inline Vec<float> muladd(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
inline Vec<double> muladd(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#else
inline Vec<float> muladd(Vec<float> a, Vec<float> b, Vec<float> c) { return a * b + c; }
inline Vec<double> muladd(Vec<double> a, Vec<double> b, Vec<double> c) { return a * b + c; }
#endif

// Nearest integer, halves to even, for |x| below 2^22 (float) or 2^51 (double); larger values come back as they are.
template <typename T>
inline Vec<T> nearest_integer(Vec<T> x) {
    constexpr T magic = sizeof(T) == 4 ? T(12582912) : T(6755399441055744);
    constexpr T limit = sizeof(T) == 4 ? T(4194304) : T(2251799813685248);
    const Vec<T> rounded = (x + magic) - magic;
    const Vec<T> size = x < 0 ? -x : x;
    return size < limit ? rounded : x;
}

// One bit a lane where a == b.
template <typename T>
inline unsigned equal_lanes(Vec<T> a, Vec<T> b) {
#if SPARSEGEN_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4) {
        return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ);
    } else {
        return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ);
    }
#elif SPARSEGEN_VECTOR_BYTES == 32
    if constexpr (sizeof(T) == 4) {
        return static_cast<unsigned>(_mm256_movemask_ps((__m256)(a == b)));
    } else {
        return static_cast<unsigned>(_mm256_movemask_pd((__m256d)(a == b)));
    }
#elif defined(__SSE2__)
    if constexpr (sizeof(T) == 4) {
        return static_cast<unsigned>(_mm_movemask_ps((__m128)(a == b)));
    } else {
        return static_cast<unsigned>(_mm_movemask_pd((__m128d)(a == b)));
    }
#else
    unsigned bits = 0;
    for (index_t i = 0; i < kLanes<T>; ++i) bits |= (a[i] == b[i] ? 1u : 0u) << i;
    return bits;
#endif
}

// The smallest lane, by halving; lanes hold no NaN.
template <typename T>
inline T smallest_lane(Vec<T> v) {
    T lanes[kLanes<T>];
    store(lanes, v);
    for (index_t half = kLanes<T> / 2; half > 0; half /= 2) {
        for (index_t i = 0; i < half; ++i) lanes[i] = lanes[i] < lanes[i + half] ? lanes[i] : lanes[i + half];
    }
    return lanes[0];
}

}  // namespace sparsegen::SPARSEGEN_ISA
