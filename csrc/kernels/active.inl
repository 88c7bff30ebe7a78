// Active cells of dense rows: magnitude above a threshold, or not a number.
//
// A first pass leaves one bit a cell and the count of every row; a second one, when the caller has made room, visits the
// set bits alone.
#pragma once

#include "simd.hpp"

namespace sparsegen::SPARSEGEN_ISA {

using bits_t = std::uint64_t;
constexpr index_t kBits = 64;

// One bit for each of up to 64 cells. The smaller of magnitude and threshold is the magnitude of an inactive cell alone.
template <typename T>
inline bits_t active_bits(const T* values, index_t size, T threshold) {
    bits_t bits = 0;
    index_t i = 0;
    const Vec<T> limit = broadcast(threshold);
    for (; i + kLanes<T> <= size; i += kLanes<T>) {
        const Vec<T> x = load(values + i);
        const Vec<T> magnitude = x < 0 ? -x : x;
        const bits_t quiet = equal_lanes<T>(least(magnitude, limit), magnitude);
        bits |= (~quiet & ((bits_t{1} << kLanes<T>) - 1)) << i;
    }
    for (; i < size; ++i) {
        const T magnitude = values[i] < 0 ? -values[i] : values[i];
        bits |= bits_t{!(magnitude <= threshold)} << i;
    }
    return bits;
}

template <typename T>
void mark_active(const T* values, index_t rows, index_t cells, T threshold, bits_t* bits, index_t* counts) {
    for (index_t row = 0; row < rows; ++row) {
        index_t count = 0;
        for (index_t start = 0; start < cells; start += kBits, ++bits) {
            const index_t size = cells - start < kBits ? cells - start : kBits;
            *bits = active_bits(values + row * cells + start, size, threshold);
            count += __builtin_popcountll(*bits);
        }
        counts[row] = count;
    }
}

template <index_t D, typename T>
void list_rows(const T* values, index_t rows, index_t cells, const bits_t* bits, const index_t* table, index_t* coords,
               float* features) {
    for (index_t row = 0; row < rows; ++row, values += cells) {
        for (index_t start = 0; start < cells; start += kBits, ++bits) {
            for (bits_t left = *bits; left != 0; left &= left - 1) {
                const index_t cell = start + __builtin_ctzll(left);
                for (index_t axis = 0; axis < D; ++axis) coords[axis] = table[cell * D + axis];
                coords += D;
                *features++ = static_cast<float>(values[cell]);
            }
        }
    }
}

template <typename T>
void list_active(const T* values, index_t rows, index_t cells, const bits_t* bits, const index_t* table, index_t dim,
                 index_t* coords, float* features) {
    constexpr decltype(&list_rows<1, T>) by_dim[] = {&list_rows<1, T>, &list_rows<2, T>, &list_rows<3, T>,
                                                     &list_rows<4, T>};
    by_dim[dim - 1](values, rows, cells, bits, table, coords, features);
}

MarkActiveFn<float> mark_active_f32;
void mark_active_f32(const float* values, index_t rows, index_t cells, float threshold, bits_t* bits, index_t* counts) {
    mark_active(values, rows, cells, threshold, bits, counts);
}
MarkActiveFn<double> mark_active_f64;
void mark_active_f64(const double* values, index_t rows, index_t cells, double threshold, bits_t* bits,
                     index_t* counts) {
    mark_active(values, rows, cells, threshold, bits, counts);
}
ListActiveFn<float> list_active_f32;
void list_active_f32(const float* values, index_t rows, index_t cells, const bits_t* bits, const index_t* table,
                     index_t dim, index_t* coords, float* features) {
    list_active(values, rows, cells, bits, table, dim, coords, features);
}
ListActiveFn<double> list_active_f64;
void list_active_f64(const double* values, index_t rows, index_t cells, const bits_t* bits, const index_t* table,
                     index_t dim, index_t* coords, float* features) {
    list_active(values, rows, cells, bits, table, dim, coords, features);
}

}  // namespace sparsegen::SPARSEGEN_ISA
