// Sparse convolution as an implicit matrix product: gather, multiply and accumulate without a gathered copy.
//
// A kernel map lists pairs (input row, output row) tap after tap, output rows rising within a tap. A tile of outputs
// stays in the second-level cache while every tap adds to it; a block of a few pairs times a few vectors of channels is
// accumulated in registers. Each output sums its taps in their order and each product its channels in theirs, so
// results depend neither on tiles nor on blocks nor on threads.
#pragma once

#include <utility>

#include "buffer.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace sparsegen::SPARSEGEN_ISA {

// Accumulators of a block fill most of the registers: 32 of 512 bits, 16 of the others.
#if SPARSEGEN_VECTOR_BYTES == 64
constexpr index_t kPanel = 4;
constexpr index_t kAccumulators = 24;
#else
constexpr index_t kPanel = 2;
constexpr index_t kAccumulators = 12;
#endif
// Rows of a block with V vectors of channels.
template <index_t V>
constexpr index_t kBlockRows = V == 1 ? (kAccumulators > 12 ? 14 : 8) : kAccumulators / V;

// Bytes of one tile of outputs.
constexpr index_t kTileBytes = 256 * 1024;
// Nanoseconds of one multiply-add, roughly, to decide about threads.
constexpr double kProductCost = 0.02;

// y[r] (+)= x[r] W for R rows and V vectors of channels.
template <typename T, index_t R, index_t V>
inline void multiply_rows(const T* const* x, T* const* y, const T* w, index_t w_stride, index_t channels, bool add) {
    constexpr index_t L = kLanes<T>;
    Vec<T> sum[R][V];
#pragma GCC unroll 16
    for (index_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (index_t v = 0; v < V; ++v) sum[r][v] = Vec<T>{};
    }
    for (index_t c = 0; c < channels; ++c, w += w_stride) {
        Vec<T> row[V];
#pragma GCC unroll 4
        for (index_t v = 0; v < V; ++v) row[v] = load(w + v * L);
#pragma GCC unroll 16
        for (index_t r = 0; r < R; ++r) {
            const Vec<T> value = broadcast(x[r][c]);
#pragma GCC unroll 4
            for (index_t v = 0; v < V; ++v) sum[r][v] = muladd(value, row[v], sum[r][v]);
        }
    }
#pragma GCC unroll 16
    for (index_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (index_t v = 0; v < V; ++v) store(y[r] + v * L, add ? load(y[r] + v * L) + sum[r][v] : sum[r][v]);
    }
}

// Asks for n elements that are needed soon.
template <typename T>
inline void fetch(const T* p, index_t n) {
    for (index_t i = 0; i < n; i += 64 / static_cast<index_t>(sizeof(T))) __builtin_prefetch(p + i);
}

// The same for any number of rows.
template <typename T, index_t V>
inline void multiply_panel(const T* const* x, T* const* y, index_t rows, const T* w, index_t w_stride,
                           index_t channels, bool add) {
    constexpr index_t R = kBlockRows<V>;
    index_t r = 0;
    for (; r + R <= rows; r += R) {
        for (index_t i = r + R; i < r + 2 * R && i < rows; ++i) {
            fetch(x[i], channels);
            if (add) fetch(y[i], V * kLanes<T>);
        }
        multiply_rows<T, R, V>(x + r, y + r, w, w_stride, channels, add);
    }
    if constexpr (R > 8) {
        for (; r + 8 <= rows; r += 8) multiply_rows<T, 8, V>(x + r, y + r, w, w_stride, channels, add);
    }
    if constexpr (R > 4) {
        for (; r + 4 <= rows; r += 4) multiply_rows<T, 4, V>(x + r, y + r, w, w_stride, channels, add);
    }
    for (; r + 2 <= rows; r += 2) multiply_rows<T, 2, V>(x + r, y + r, w, w_stride, channels, add);
    for (; r < rows; ++r) multiply_rows<T, 1, V>(x + r, y + r, w, w_stride, channels, add);
}

// First of the rising rows[begin, end) that is at least `row`.
inline index_t first_at_least(const index_t* rows, index_t begin, index_t end, index_t row) {
    while (begin < end) {
        const index_t middle = begin + (end - begin) / 2;
        if (rows[middle] < row) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SPARSEGEN_SHUFFLES
// Elements of one half (H = 0 the lower) of a and of b in turn.
template <typename T, index_t H, int... I>
inline Vec<T> alternate(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
    constexpr int L = static_cast<int>(kLanes<T>);
    return __builtin_shufflevector(a, b, (I / 2 + I % 2 * L + static_cast<int>(H) * L / 2)...);
}

// Row r of a square of whole vectors becomes column r: each round rotates the bits of (row, column) by one.
template <typename T>
inline void transpose_square(const T* from, index_t from_stride, T* to, index_t to_stride) {
    constexpr index_t L = kLanes<T>;
    using Lanes = std::make_integer_sequence<int, static_cast<int>(L)>;
    Vec<T> row[L], next[L];
#pragma GCC unroll 16
    for (index_t r = 0; r < L; ++r) row[r] = load(from + r * from_stride);
#pragma GCC unroll 4
    for (index_t round = 1; round < L; round *= 2) {
#pragma GCC unroll 8
        for (index_t r = 0; r < L / 2; ++r) {
            next[2 * r] = alternate<T, 0>(row[r], row[r + L / 2], Lanes{});
            next[2 * r + 1] = alternate<T, 1>(row[r], row[r + L / 2], Lanes{});
        }
#pragma GCC unroll 16
        for (index_t r = 0; r < L; ++r) row[r] = next[r];
    }
#pragma GCC unroll 16
    for (index_t r = 0; r < L; ++r) store(to + r * to_stride, row[r]);
}
#endif
#endif

// A weight (taps, cin, cout) of any strides with its rows side by side, padded to whole vectors.
template <typename T>
class PackedWeight {
  public:
    PackedWeight(const T* weight, index_t taps, index_t cin, index_t cout, index_t tap_stride, index_t in_stride,
                 index_t out_stride)
        : row(padded<T>(cout)), tap(cin * row) {
        if (out_stride == 1 && row == cout) {
            data = weight;
            row = in_stride;
            tap = tap_stride;
            return;
        }
        T* to = copy_.grow(taps * tap + 1);
        data = to;
#ifdef SPARSEGEN_SHUFFLES
        constexpr index_t L = kLanes<T>;
        if (in_stride == 1 && cin % L == 0 && cout % L == 0) {
            for (index_t k = 0; k < taps; ++k, to += tap) {
                for (index_t c = 0; c < cin; c += L) {
                    for (index_t o = 0; o < cout; o += L) {
                        const T* from = weight + k * tap_stride + o * out_stride + c;
                        transpose_square(from, out_stride, to + c * row + o, row);
                    }
                }
            }
            return;
        }
#endif
        for (index_t k = 0; k < taps; ++k) {
            const T* from = weight + k * tap_stride;
            for (index_t c = 0; c < cin; ++c, to += row) {
                const T* values = from + c * in_stride;
                for (index_t o = 0; o < cout; ++o) to[o] = values[o * out_stride];
                for (index_t o = cout; o < row; ++o) to[o] = 0;
            }
        }
    }
    const T* data;
    index_t row, tap;

  private:
    Buffer<T> copy_;
};

// Pairs whose rows are looked up together.
constexpr index_t kPairs = 240;

// y = y or 0 plus the products of the pairs [begin, end) of one tap.
template <typename T>
inline void multiply_pairs(const T* x, index_t cin, const index_t* inputs, const index_t* outputs, index_t begin,
                           index_t end, T* tile, index_t first, index_t width, const T* w, index_t w_stride,
                           bool add) {
    constexpr index_t L = kLanes<T>;
    const T* from[kPairs];
    T* to[kPairs];
    for (index_t p = begin; p < end; p += kPairs) {
        const index_t n = end - p < kPairs ? end - p : kPairs;
        for (index_t i = 0; i < n; ++i) {
            from[i] = x + (inputs != nullptr ? inputs[p + i] : p + i) * cin;
            to[i] = tile + ((outputs != nullptr ? outputs[p + i] : p + i) - first) * width;
        }
        for (index_t o = 0; o < width; o += kPanel * L) {
            const index_t vectors = (width - o) / L;
            if (vectors >= kPanel) {
                multiply_panel<T, kPanel>(from, to, n, w + o, w_stride, cin, add);
            } else if (vectors == 1) {
                multiply_panel<T, 1>(from, to, n, w + o, w_stride, cin, add);
            } else if constexpr (kPanel == 4) {
                if (vectors == 2) {
                    multiply_panel<T, 2>(from, to, n, w + o, w_stride, cin, add);
                } else {
                    multiply_panel<T, 3>(from, to, n, w + o, w_stride, cin, add);
                }
            }
            for (index_t i = 0; i < n; ++i) to[i] += kPanel * L;
        }
    }
}

// out[o] = sum over the pairs (i, o) of each tap of x[i] W[tap]. `identity`: the tap that pairs every row with itself,
// or -1. Output rows rise within each tap. The bias (cout), where there is one, is added to every output.
template <typename T>
inline void convolve_any(const T* x, index_t cin, const T* weight, index_t taps, index_t cout, index_t tap_stride,
                         index_t in_stride, index_t out_stride, const index_t* inputs, const index_t* outputs,
                         const index_t* starts, index_t identity, index_t rows, const T* bias, T* out,
                         index_t threads) {
    const PackedWeight<T> w(weight, taps, cin, cout, tap_stride, in_stride, out_stride);
    const index_t width = padded<T>(cout);
    index_t tile_rows = kTileBytes / (width * static_cast<index_t>(sizeof(T)));
    tile_rows = tile_rows < 64 ? 64 : tile_rows;
    // Few rows are shared out evenly.
    const index_t even = (rows + 4 * threads - 1) / (4 * threads);
    if (threads > 1 && even < tile_rows) tile_rows = even < 64 ? 64 : even;
    const index_t tiles = (rows + tile_rows - 1) / tile_rows;
    const double pairs = static_cast<double>(starts[taps]);
    const double cost = kProductCost * (pairs + static_cast<double>(rows)) * static_cast<double>(cin * width);
    parallel_for(tiles, threads, cost, [&](index_t begin, index_t end) {
        Buffer<T> padded_tile;
        for (index_t t = begin; t < end; ++t) {
            const index_t first = t * tile_rows;
            const index_t last = first + tile_rows < rows ? first + tile_rows : rows;
            T* tile = width == cout ? out + first * cout : padded_tile.grow(tile_rows * width);
            if (identity >= 0) {
                multiply_pairs<T>(x, cin, nullptr, nullptr, first, last, tile, first, width,
                                  w.data + identity * w.tap, w.row, false);
            } else {
                for (index_t i = 0; i < (last - first) * width; ++i) tile[i] = 0;
            }
            for (index_t k = 0; k < taps; ++k) {
                if (k == identity) continue;
                index_t from = starts[k], to = starts[k + 1];
                if (tiles > 1) {
                    from = first_at_least(outputs, from, to, first);
                    to = first_at_least(outputs, from, to, last);
                }
                multiply_pairs<T>(x, cin, inputs, outputs, from, to, tile, first, width, w.data + k * w.tap, w.row,
                                  true);
            }
            for (index_t i = first; i < last && (width != cout || bias != nullptr); ++i) {
                const T* from = tile + (i - first) * width;
                T* to = out + i * cout;
                if (bias == nullptr) {
                    for (index_t o = 0; o < cout; ++o) to[o] = from[o];
                } else {
                    for (index_t o = 0; o < cout; ++o) to[o] = from[o] + bias[o];
                }
            }
        }
    });
}

// Products whose sum stays in registers before it is added to the result: short sums keep the rounding small.
constexpr index_t kChunk = 256;

// out[r][o] += sum over n pairs of x[p][r] y[p][o] for R input channels and V vectors of output channels.
template <typename T, index_t R, index_t V>
inline void outer_products(const T* const* x, const T* const* y, index_t n, index_t c, index_t o, T* out,
                           index_t out_stride) {
    constexpr index_t L = kLanes<T>;
    Vec<T> sum[R][V];
#pragma GCC unroll 16
    for (index_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (index_t v = 0; v < V; ++v) sum[r][v] = Vec<T>{};
    }
    for (index_t p = 0; p < n; ++p) {
        const T* values = x[p] + c;
        const T* row = y[p] + o;
        Vec<T> other[V];
#pragma GCC unroll 4
        for (index_t v = 0; v < V; ++v) other[v] = load(row + v * L);
#pragma GCC unroll 16
        for (index_t r = 0; r < R; ++r) {
            const Vec<T> value = broadcast(values[r]);
#pragma GCC unroll 4
            for (index_t v = 0; v < V; ++v) sum[r][v] = muladd(value, other[v], sum[r][v]);
        }
    }
#pragma GCC unroll 16
    for (index_t r = 0; r < R; ++r) {
        T* to = out + r * out_stride;
#pragma GCC unroll 4
        for (index_t v = 0; v < V; ++v) store(to + v * L, load(to + v * L) + sum[r][v]);
    }
}

// The same for the input channels [begin, end).
template <typename T, index_t V>
inline void outer_panel(const T* const* x, const T* const* y, index_t n, index_t begin, index_t end, index_t o, T* out,
                        index_t out_stride) {
    constexpr index_t R = kBlockRows<V>;
    index_t c = begin;
    for (; c + R <= end; c += R) outer_products<T, R, V>(x, y, n, c, o, out + c * out_stride + o, out_stride);
    if constexpr (R > 8) {
        for (; c + 8 <= end; c += 8) outer_products<T, 8, V>(x, y, n, c, o, out + c * out_stride + o, out_stride);
    }
    if constexpr (R > 4) {
        for (; c + 4 <= end; c += 4) outer_products<T, 4, V>(x, y, n, c, o, out + c * out_stride + o, out_stride);
    }
    for (; c + 2 <= end; c += 2) outer_products<T, 2, V>(x, y, n, c, o, out + c * out_stride + o, out_stride);
    for (; c < end; ++c) outer_products<T, 1, V>(x, y, n, c, o, out + c * out_stride + o, out_stride);
}

// sums (cin, width) += sum over the pairs [begin, end) of one tap of x[i]^T y[o], for the input channels [low, high).
template <typename T>
inline void outer_pairs(const T* x, index_t cin, const T* y, index_t cout, const index_t* inputs,
                        const index_t* outputs, index_t begin, index_t end, index_t low, index_t high, T* sums,
                        index_t width, T* rows) {
    constexpr index_t L = kLanes<T>;
    const T* from[kChunk];
    const T* other[kChunk];
    for (index_t p = begin; p < end; p += kChunk) {
        const index_t n = end - p < kChunk ? end - p : kChunk;
        for (index_t i = 0; i < n; ++i) {
            from[i] = x + (inputs != nullptr ? inputs[p + i] : p + i) * cin;
            other[i] = y + (outputs != nullptr ? outputs[p + i] : p + i) * cout;
            if (width != cout) {
                T* to = rows + i * width;
                for (index_t o = 0; o < cout; ++o) to[o] = other[i][o];
                for (index_t o = cout; o < width; ++o) to[o] = 0;
                other[i] = to;
            }
        }
        for (index_t o = 0; o < width; o += kPanel * L) {
            const index_t vectors = (width - o) / L;
            if (vectors >= kPanel) {
                outer_panel<T, kPanel>(from, other, n, low, high, o, sums, width);
            } else if (vectors == 1) {
                outer_panel<T, 1>(from, other, n, low, high, o, sums, width);
            } else if constexpr (kPanel == 4) {
                if (vectors == 2) {
                    outer_panel<T, 2>(from, other, n, low, high, o, sums, width);
                } else {
                    outer_panel<T, 3>(from, other, n, low, high, o, sums, width);
                }
            }
        }
    }
}

// out[tap] = sum over its pairs (i, o) of x[i]^T y[o], channels at the given strides. Rows rise within each tap, at least
// in the main: the same share of every tap's pairs is summed before the next one, while their rows are in cache.
template <typename T>
inline void correlate_any(const T* x, index_t cin, const T* y, index_t cout, index_t size, const index_t* inputs,
                          const index_t* outputs, const index_t* starts, index_t taps, index_t identity, T* out,
                          index_t in_stride, index_t out_stride, index_t threads) {
    const index_t width = padded<T>(cout);
    const index_t tile_rows = kTileBytes / (width * static_cast<index_t>(sizeof(T))) + kChunk;
    const index_t tiles = (size + tile_rows - 1) / tile_rows;
    const double cost = kProductCost * static_cast<double>(starts[taps]) * static_cast<double>(cin * width);
    // Channels are shared out too: the middle tap of a sparse map has most of the pairs.
    const index_t parts = threads > 1 && cin >= 16 ? 4 : 1;
    parallel_for(taps * parts, threads, cost, [&](index_t begin, index_t end) {
        const index_t first_tap = begin / parts, held = (end - 1) / parts + 1 - first_tap;
        // Summed in place where the result is laid out alike.
        const bool in_place = width == cout && in_stride == cout && out_stride == 1;
        Buffer<T> own(in_place ? 1 : held * cin * width + 1), rows(width != cout ? kChunk * width : 1);
        T* sums = in_place ? out + first_tap * cin * cout : own.data();
        for (index_t item = begin; item < end; ++item) {
            const index_t k = item / parts - first_tap, part = item % parts;
            const index_t low = cin * part / parts, high = cin * (part + 1) / parts;
            for (index_t i = (k * cin + low) * width; i < (k * cin + high) * width; ++i) sums[i] = 0;
        }
        for (index_t t = 0; t < tiles; ++t) {
            for (index_t item = begin; item < end; ++item) {
                const index_t k = item / parts, part = item % parts;
                const index_t low = cin * part / parts, high = cin * (part + 1) / parts;
                T* to = sums + (k - first_tap) * cin * width;
                const bool same = k == identity;
                const index_t start = same ? 0 : starts[k], count = starts[k + 1] - starts[k];
                outer_pairs<T>(x, cin, y, cout, same ? nullptr : inputs, same ? nullptr : outputs,
                               start + count * t / tiles, start + count * (t + 1) / tiles, low, high, to, width,
                               rows.data());
            }
        }
        for (index_t item = begin; item < end && !in_place; ++item) {
            const index_t k = item / parts, part = item % parts;
            for (index_t c = cin * part / parts; c < cin * (part + 1) / parts; ++c) {
                const T* from = sums + ((k - first_tap) * cin + c) * width;
                for (index_t o = 0; o < cout; ++o) out[k * cin * cout + c * in_stride + o * out_stride] = from[o];
            }
        }
    });
}

#define SPARSEGEN_CONVOLVE(name, T)                                                                                 \
    ConvolveFn<T> convolve_##name;                                                                                  \
    void convolve_##name(const T* x, index_t cin, const T* weight, index_t taps, index_t cout, index_t tap_stride,  \
                         index_t in_stride, index_t out_stride, const index_t* inputs, const index_t* outputs,      \
                         const index_t* starts, index_t identity, index_t rows, const T* bias, T* out,              \
                         index_t threads) {                                                                         \
        convolve_any<T>(x, cin, weight, taps, cout, tap_stride, in_stride, out_stride, inputs, outputs, starts,     \
                        identity, rows, bias, out, threads);                                                        \
    }                                                                                                               \
    CorrelateFn<T> correlate_##name;                                                                                \
    void correlate_##name(const T* x, index_t cin, const T* y, index_t cout, index_t rows, const index_t* inputs,   \
                          const index_t* outputs, const index_t* starts, index_t taps, index_t identity, T* out,    \
                          index_t in_stride, index_t out_stride, index_t threads) {                                 \
        correlate_any<T>(x, cin, y, cout, rows, inputs, outputs, starts, taps, identity, out, in_stride,            \
                         out_stride, threads);                                                                      \
    }
SPARSEGEN_CONVOLVE(f32, float)
SPARSEGEN_CONVOLVE(f64, double)
#undef SPARSEGEN_CONVOLVE

}  // namespace sparsegen::SPARSEGEN_ISA
