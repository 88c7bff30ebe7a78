// Sparse convolution of bfloat16 features and weights, summed in float32.
//
// As in convolve.inl a tile of outputs stays in cache while every tap adds to it. Sixteen pairs at a time are gathered,
// multiplied by the tap's weight and added to their outputs; the product runs on the matrix unit (AMX), on the vectors'
// pair products (AVX512-BF16), or in plain float32, whichever the machine has first.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && SPARSEGEN_VECTOR_BYTES == 64 && \
    __has_include(<amxbf16intrin.h>)
#define SPARSEGEN_BFLOAT_UNITS 1
#include <sys/syscall.h>
#include <unistd.h>
#else
#define SPARSEGEN_BFLOAT_UNITS 0
#endif

#include "buffer.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace sparsegen::SPARSEGEN_ISA {

using bfloat_t = std::uint16_t;
constexpr index_t kBfloatRows = 16, kBfloatDepth = 32, kBfloatWidth = 16;

// What multiplies: 0 plain float32, 1 AVX512-BF16, 2 AMX.
BfloatUnitFn bfloat_unit;
index_t bfloat_unit() {
#if SPARSEGEN_BFLOAT_UNITS
    static const index_t unit = [] {
        // The kernel grants a process the matrix registers' state on request (ARCH_REQ_XCOMP_PERM of XTILEDATA).
        const bool tiles = __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
        return index_t{tiles ? 2 : __builtin_cpu_supports("avx512bf16") ? 1 : 0};
    }();
    return unit;
#else
    return 0;
#endif
}

inline float widened(bfloat_t value) {
    const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
    float result;
    __builtin_memcpy(&result, &bits, sizeof result);
    return result;
}

// sums (16, width) = a (16, depth) w, where w (depth / 2, width, 2) holds pairs of channels side by side.
inline void bfloat_plain(const bfloat_t* a, index_t depth, const bfloat_t* w, index_t width, float* sums) {
    for (index_t r = 0; r < kBfloatRows; ++r, a += depth, sums += width) {
        for (index_t o = 0; o < width; ++o) sums[o] = 0;
        for (index_t c = 0; c < depth; c += 2) {
            const float first = widened(a[c]), second = widened(a[c + 1]);
            const bfloat_t* row = w + c * width;
            for (index_t o = 0; o < width; ++o) sums[o] += first * widened(row[2 * o]) + second * widened(row[2 * o + 1]);
        }
    }
}

#if SPARSEGEN_BFLOAT_UNITS
template <index_t V>
__attribute__((target("avx512bf16"))) inline void bfloat_vectors(const bfloat_t* a, index_t depth, const bfloat_t* w,
                                                                  index_t width, float* sums) {
    constexpr index_t R = 4;
    for (index_t r = 0; r < kBfloatRows; r += R, a += R * depth, sums += R * width) {
        __m512 sum[R][V];
#pragma GCC unroll 4
        for (index_t i = 0; i < R; ++i) {
#pragma GCC unroll 4
            for (index_t v = 0; v < V; ++v) sum[i][v] = _mm512_setzero_ps();
        }
        for (index_t c = 0; c < depth; c += 2) {
            __m512bh row[V];
#pragma GCC unroll 4
            for (index_t v = 0; v < V; ++v) row[v] = (__m512bh)_mm512_loadu_si512(w + c * width + 2 * v * kBfloatWidth);
#pragma GCC unroll 4
            for (index_t i = 0; i < R; ++i) {
                std::int32_t pair;
                __builtin_memcpy(&pair, a + i * depth + c, sizeof pair);
#pragma GCC unroll 4
                for (index_t v = 0; v < V; ++v) {
                    sum[i][v] = _mm512_dpbf16_ps(sum[i][v], (__m512bh)_mm512_set1_epi32(pair), row[v]);
                }
            }
        }
#pragma GCC unroll 4
        for (index_t i = 0; i < R; ++i) {
#pragma GCC unroll 4
            for (index_t v = 0; v < V; ++v) _mm512_storeu_ps(sums + i * width + v * kBfloatWidth, sum[i][v]);
        }
    }
}

// The compiler's own forms do not say that they read and write memory.
#define SPARSEGEN_TILE_ZERO(t) asm volatile("tilezero %%tmm" #t ::: "memory")
#define SPARSEGEN_TILE_LOAD(t, p, bytes) asm volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"(bytes) : "memory")
#define SPARSEGEN_TILE_STORE(t, p, bytes) asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"(bytes) : "memory")
#define SPARSEGEN_TILE_PRODUCT(t, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #t ::: "memory")

// Sixteen rows of 64 bytes in each register while it lives; the state is the thread's own.
class Tiles {
  public:
    explicit Tiles(bool wanted) : held_(wanted) {
        if (!held_) return;
        struct alignas(64) {
            std::uint8_t palette, start, reserved[14];
            std::uint16_t bytes[16];
            std::uint8_t rows[16];
        } shape = {};
        shape.palette = 1;
        for (int t = 0; t < 8; ++t) shape.bytes[t] = 64, shape.rows[t] = 16;
        asm volatile("ldtilecfg %0" ::"m"(shape) : "memory");
    }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
    ~Tiles() {
        if (held_) asm volatile("tilerelease" ::: "memory");
    }

  private:
    bool held_;
};

// At most four vectors of outputs.
inline void bfloat_tiles(const bfloat_t* a, index_t depth, const bfloat_t* w, index_t width, index_t vectors,
                         float* sums) {
    const index_t a_bytes = 2 * depth, w_bytes = 4 * width;
    SPARSEGEN_TILE_ZERO(0);
    SPARSEGEN_TILE_ZERO(1);
    SPARSEGEN_TILE_ZERO(2);
    SPARSEGEN_TILE_ZERO(3);
    for (index_t c = 0; c < depth; c += kBfloatDepth) {
        const bfloat_t* row = w + c * width;
        SPARSEGEN_TILE_LOAD(4, a + c, a_bytes);
        SPARSEGEN_TILE_LOAD(5, row, w_bytes);
        SPARSEGEN_TILE_PRODUCT(0, 4, 5);
        if (vectors > 1) {
            SPARSEGEN_TILE_LOAD(6, row + 2 * kBfloatWidth, w_bytes);
            SPARSEGEN_TILE_PRODUCT(1, 4, 6);
        }
        if (vectors > 2) {
            SPARSEGEN_TILE_LOAD(7, row + 4 * kBfloatWidth, w_bytes);
            SPARSEGEN_TILE_PRODUCT(2, 4, 7);
        }
        if (vectors > 3) {
            SPARSEGEN_TILE_LOAD(5, row + 6 * kBfloatWidth, w_bytes);
            SPARSEGEN_TILE_PRODUCT(3, 4, 5);
        }
    }
    SPARSEGEN_TILE_STORE(0, sums, w_bytes);
    if (vectors > 1) SPARSEGEN_TILE_STORE(1, sums + kBfloatWidth, w_bytes);
    if (vectors > 2) SPARSEGEN_TILE_STORE(2, sums + 2 * kBfloatWidth, w_bytes);
    if (vectors > 3) SPARSEGEN_TILE_STORE(3, sums + 3 * kBfloatWidth, w_bytes);
}
#endif

inline void bfloat_block(const bfloat_t* a, index_t depth, const bfloat_t* w, index_t width, index_t unit, float* sums) {
#if SPARSEGEN_BFLOAT_UNITS
    for (index_t o = 0; unit > 0 && o < width; o += 4 * kBfloatWidth) {
        const index_t left = (width - o) / kBfloatWidth, vectors = left < 4 ? left : 4;
        if (unit == 2) {
            bfloat_tiles(a, depth, w + 2 * o, width, vectors, sums + o);
        } else if (vectors == 4) {
            bfloat_vectors<4>(a, depth, w + 2 * o, width, sums + o);
        } else if (vectors == 3) {
            bfloat_vectors<3>(a, depth, w + 2 * o, width, sums + o);
        } else if (vectors == 2) {
            bfloat_vectors<2>(a, depth, w + 2 * o, width, sums + o);
        } else {
            bfloat_vectors<1>(a, depth, w + 2 * o, width, sums + o);
        }
    }
    if (unit > 0) return;
#endif
    (void)unit;
    bfloat_plain(a, depth, w, width, sums);
}

// A call to copy a short row would cost as much as its product.
inline void copy_row(const bfloat_t* from, index_t n, bfloat_t* to) {
    index_t c = 0;
    for (; c + kBfloatDepth <= n; c += kBfloatDepth) __builtin_memcpy(to + c, from + c, kBfloatDepth * sizeof(bfloat_t));
    for (; c < n; ++c) to[c] = from[c];
}

inline void add_row(const float* from, index_t n, float* to) {
    constexpr index_t L = kLanes<float>;
    index_t o = 0;
    for (; o + L <= n; o += L) store(to + o, load(to + o) + load(from + o));
    for (; o < n; ++o) to[o] += from[o];
}

// out = bias plus, for each tap, the products of its pairs; see convolve_any. `unit`: what multiplies, at most
// bfloat_unit().
ConvolveBfloatFn convolve_bf16;
void convolve_bf16(const bfloat_t* x, index_t cin, const bfloat_t* weight, index_t taps, index_t cout,
                   index_t tap_stride, index_t in_stride, index_t out_stride, const index_t* inputs,
                   const index_t* outputs, const index_t* starts, index_t identity, index_t rows, const float* bias,
                   float* out, index_t unit, index_t threads) {
    const index_t depth = (cin + kBfloatDepth - 1) / kBfloatDepth * kBfloatDepth;
    const index_t width = (cout + kBfloatWidth - 1) / kBfloatWidth * kBfloatWidth;
    Buffer<bfloat_t> packed(taps * depth * width);
    for (index_t k = 0; k < taps; ++k) {
        bfloat_t* to = packed.data() + k * depth * width;
        for (index_t i = 0; i < depth * width; ++i) to[i] = 0;
        for (index_t c = 0; c < cin; ++c) {
            const bfloat_t* from = weight + k * tap_stride + c * in_stride;
            bfloat_t* row = to + c / 2 * 2 * width + c % 2;
            for (index_t o = 0; o < cout; ++o) row[2 * o] = from[o * out_stride];
        }
    }
    index_t tile_rows = kTileBytes / (width * static_cast<index_t>(sizeof(float)));
    const index_t even = (rows + 4 * threads - 1) / (4 * threads);
    if (threads > 1 && even < tile_rows) tile_rows = even;
    tile_rows = tile_rows < 64 ? 64 : tile_rows;
    const index_t tiles = (rows + tile_rows - 1) / tile_rows;
    const double pairs = static_cast<double>(starts[taps]);
    const double cost = 0.25 * kProductCost * (pairs + static_cast<double>(rows)) * static_cast<double>(depth * width);
    parallel_for(tiles, threads, cost, [&](index_t begin, index_t end) {
#if SPARSEGEN_BFLOAT_UNITS
        const Tiles registers(unit == 2);
#endif
        Buffer<bfloat_t> gathered(kBfloatRows * depth);
        Buffer<float> sums(kBfloatRows * width);
        for (index_t i = 0; i < kBfloatRows * depth; ++i) gathered[i] = 0;
        for (index_t t = begin; t < end; ++t) {
            const index_t first = t * tile_rows, last = first + tile_rows < rows ? first + tile_rows : rows;
            for (index_t i = first * cout; i < last * cout; ++i) out[i] = 0;
            for (index_t k = 0; k < taps; ++k) {
                const bool same = k == identity;
                const index_t from = same ? first : first_at_least(outputs, starts[k], starts[k + 1], first);
                const index_t to = same ? last : first_at_least(outputs, from, starts[k + 1], last);
                for (index_t p = from; p < to; p += kBfloatRows) {
                    const index_t n = to - p < kBfloatRows ? to - p : kBfloatRows;
                    for (index_t r = 0; r < n; ++r) {
                        copy_row(x + (same ? p + r : inputs[p + r]) * cin, cin, gathered.data() + r * depth);
                        if (!same && p + r + 2 * kBfloatRows < to) {
                            fetch(x + inputs[p + r + 2 * kBfloatRows] * cin, cin);
                            fetch(out + outputs[p + r + 2 * kBfloatRows] * cout, cout);
                        }
                    }
                    bfloat_block(gathered.data(), depth, packed.data() + k * depth * width, width, unit, sums.data());
                    for (index_t r = 0; r < n; ++r) {
                        add_row(sums.data() + r * width, cout, out + (same ? p + r : outputs[p + r]) * cout);
                    }
                }
            }
            for (index_t i = first; i < last && bias != nullptr; ++i) add_row(bias, cout, out + i * cout);
        }
    });
}

}  // namespace sparsegen::SPARSEGEN_ISA
