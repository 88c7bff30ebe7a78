// Vectors of one register through the compiler's vector extensions: + - * / work on them as they are.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <type_traits>
#include <utility>

#include "kernels.hpp"

#define SPARSEGEN_INLINE __attribute__((always_inline))

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

// body(0), ..., body(N - 1), each with its number as a constant: arrays indexed by it become registers, which those of a
// loop that is unrolled later do not always.
template <typename F, int... I>
inline SPARSEGEN_INLINE void steps_of(F&& body, std::integer_sequence<int, I...>) {
    (body(std::integral_constant<int, I>{}), ...);
}
template <int N, typename F>
inline SPARSEGEN_INLINE void steps(F&& body) {
    steps_of(body, std::make_integer_sequence<int, N>{});
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
#if defined(__SSE2__)
inline float smallest(__m128 v) {
    v = _mm_min_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_min_ss(v, _mm_shuffle_ps(v, v, 1)));
}
inline double smallest(__m128d v) { return _mm_cvtsd_f64(_mm_min_sd(v, _mm_unpackhi_pd(v, v))); }
#endif
#if SPARSEGEN_VECTOR_BYTES >= 32
inline float smallest(__m256 v) { return smallest(_mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1))); }
inline double smallest(__m256d v) {
    return smallest(_mm_min_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1)));
}
#endif
#if SPARSEGEN_VECTOR_BYTES == 64
inline float smallest(__m512 v) {
    return smallest(_mm256_min_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}
inline double smallest(__m512d v) {
    return smallest(_mm256_min_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1)));
}
#endif

template <typename T>
inline T smallest_lane(Vec<T> v) {
#if SPARSEGEN_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4) {
        return smallest((__m512)v);
    } else {
        return smallest((__m512d)v);
    }
#elif SPARSEGEN_VECTOR_BYTES == 32
    if constexpr (sizeof(T) == 4) {
        return smallest((__m256)v);
    } else {
        return smallest((__m256d)v);
    }
#elif defined(__SSE2__)
    if constexpr (sizeof(T) == 4) {
        return smallest((__m128)v);
    } else {
        return smallest((__m128d)v);
    }
#else
    T result = v[0];
    for (index_t i = 1; i < kLanes<T>; ++i) result = least<T>(v[i], result);
    return result;
#endif
}

}  // namespace sparsegen::SPARSEGEN_ISA
