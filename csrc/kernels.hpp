// The native extension: plain C++ on plain buffers, no torch headers.
//
// One kernel source is compiled once per instruction set (portable, AVX2 + FMA, AVX-512) and chosen at run time:
//
//   kernels/NAME.inl   the kernel, inside namespace SPARSEGEN_ISA, on top of simd.hpp and buffer.hpp
//   kernels.inl        includes every .inl; isa_*.cpp includes it under one instruction set's flags
//   kernels.hpp        this file: the kernels' names and signatures
//   parallel.hpp/.cpp  parallel_for over std::thread
//   module.cpp         the Python module; binds every name of SPARSEGEN_KERNELS by its signature
//
// To add a kernel: write kernels/NAME.inl, include it in kernels.inl, add its signature and one line to
// SPARSEGEN_KERNELS below. Python then has sparsegen.kernels._native.NAME(*arguments): pointers travel as integers
// (tensor.data_ptr()), the GIL is released, a negative or positive return value comes back as an int.
//
// Rules for the .inl files, which keep code of a newer instruction set out of older machines:
//   - everything is inside namespace SPARSEGEN_ISA; no std containers, algorithms or threads (their inline functions
//     would be merged across instruction sets by the linker): Buffer from buffer.hpp, parallel_for from parallel.hpp.
//   - no -ffast-math and no contraction: a * b + c rounds twice on every instruction set, so results agree bit for
//     bit; muladd(a, b, c) asks for the fused operation where exact agreement is not promised.
//   - results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __FAST_MATH__
#error "sparsegen must not be built with -ffast-math: it flushes denormals process-wide and breaks NaN handling"
#endif

namespace sparsegen {

using index_t = std::int64_t;

// Active cells of dense rows: a bit a cell and the count of each row, then the cells and their values; see
// kernels/active.inl.
template <typename T>
using MarkActiveFn = void(const T* values, index_t rows, index_t cells, T threshold, std::uint64_t* bits,
                          index_t* counts);
template <typename T>
using ListActiveFn = void(const T* values, index_t rows, index_t cells, const std::uint64_t* bits,
                          const index_t* table, index_t dim, index_t* coords, float* features);

// The zlib stream of an array from its cells that are not zero, and the room it needs; see kernels/deflate.inl.
using DeflateCellsFn = index_t(const std::uint8_t* values, const index_t* places, index_t cells, index_t width,
                               index_t size, std::uint8_t* out);
using DeflateRoomFn = index_t(index_t cells, index_t width, index_t size);

// Sums of amounts by cell; see kernels/spots.inl.
using SumSpotsFn = index_t(const std::int32_t* spots, const float* amounts, const index_t* offsets, index_t rows,
                           index_t cells, index_t* places, float* sums);

// Nearest target of every query, event by event. Returns nothing; see kernels/nearest.inl.
template <typename T>
using NearestFn = void(const T* queries, const index_t* query_offsets, const T* targets, const index_t* target_offsets,
                       index_t events, index_t dim, const T* period, index_t* query_index, T* query_squared,
                       index_t* target_index, T* target_squared, index_t threads);

// Mean distance to the nearest point between all clouds of a and of b, both ways; see kernels/chamfer.inl.
template <typename T>
using ChamferFn = void(const T* a, const index_t* a_offsets, index_t a_count, const T* b, const index_t* b_offsets,
                       index_t b_count, index_t dim, const T* period, index_t squared, index_t symmetric,
                       double* forward, double* backward, index_t threads);

// Exact assignment for a batch of matrices, given or made from points; see kernels/assignment.inl.
using AssignFn = index_t(const double* costs, const index_t* row_offsets, const index_t* column_offsets,
                         index_t events, index_t* partner, double* totals, index_t threads);
using AssignPointsFn = index_t(const double* a, const index_t* a_offsets, const double* b, const index_t* b_offsets,
                               index_t events, index_t dim, const double* period, index_t power, index_t* partner,
                               double* totals, index_t threads);

// Sparse convolution over a kernel map and the gradient of its weight; see kernels/convolve.inl.
template <typename T>
using ConvolveFn = void(const T* x, index_t cin, const T* weight, index_t taps, index_t cout, index_t tap_stride,
                        index_t in_stride, index_t out_stride, const index_t* inputs, const index_t* outputs,
                        const index_t* starts, index_t identity, index_t rows, const T* bias, T* out,
                        index_t threads);
template <typename T>
using CorrelateFn = void(const T* x, index_t cin, const T* y, index_t cout, index_t rows, const index_t* inputs,
                         const index_t* outputs, const index_t* starts, index_t taps, index_t identity, T* out,
                         index_t in_stride, index_t out_stride, index_t threads);

// The same of bfloat16 features and weights, summed in float32, and what multiplies them; see kernels/bfloat.inl.
using ConvolveBfloatFn = void(const std::uint16_t* x, index_t cin, const std::uint16_t* weight, index_t taps,
                              index_t cout, index_t tap_stride, index_t in_stride, index_t out_stride,
                              const index_t* inputs, const index_t* outputs, const index_t* starts, index_t identity,
                              index_t rows, const float* bias, float* out, index_t unit, index_t threads);
using BfloatUnitFn = index_t();

// Targets in the order that best_cells wants, returning its length (with null: the length alone), and the best score
// <x, y> + h of every point, whose it is, and the second-best score; see kernels/potential.inl.
template <typename T>
using PackCellsFn = index_t(const T* targets, index_t n, index_t dim, T* packed);
template <typename T>
using BestCellsFn = void(const T* x, const T* packed, const T* heights, index_t m, index_t n, index_t dim,
                         index_t* index, T* score, T* second, index_t threads);

// Cells of all mirror images of every point, sums of the images in each cell, and steps of averaged gradient descent;
// see kernels/mirrors.inl.
using MirrorCellsFn = void(const float* x, const float* packed, const float* heights, index_t m, index_t n, index_t dim,
                           index_t groups, std::int32_t* cells, float* scores, index_t threads);
using MirrorSumsFn = void(const float* x, const float* signs, const std::int32_t* cells, index_t m, index_t dim,
                          index_t images, float* sums);
using MirrorDescendFn = void(const float* x, const float* packed, const float* weights, index_t steps, index_t rows,
                             index_t n, index_t dim, index_t groups, const float* lengths, const float* rates,
                             float* iterate, float* average, index_t threads);

// Kernel maps from bitmaps of active sites; see kernels/sites.inl.
using SitesKeysFn = index_t(const index_t* coords, index_t n, index_t dim, const index_t* limits, index_t* keys);
using SitesMarkFn = void(const index_t* keys, index_t n, std::uint64_t* words, index_t count, std::int32_t* ranks);
using SitesReachFn = index_t(const index_t* coords, index_t n, index_t dim, const index_t* geometry, index_t down,
                             std::uint64_t* words, index_t count, std::int32_t* ranks);
using SitesListFn = void(const std::uint64_t* words, index_t count, const index_t* shape, index_t dim, index_t* keys,
                         index_t* coords);
using SitesSearchFn = index_t(const index_t* coords, index_t m, index_t dim, const index_t* geometry,
                              const std::uint64_t* words, const std::int32_t* ranks, index_t taps, index_t mirrored,
                              std::int32_t* hits, index_t* starts);
using SitesGroupFn = void(const std::int32_t* hits, index_t n, index_t taps, const index_t* starts, index_t mirrored,
                          index_t rows, index_t* site_rows, index_t* window_rows);

using SitesOrderFn = void(const index_t* inputs, const index_t* outputs, const index_t* starts, index_t taps,
                          index_t rows, index_t* ordered_inputs, index_t* ordered_outputs);

// Earth mover's distances of all sets of a to all sets of b; see kernels/flow.inl.
using FlowFn = index_t(const double* a, const index_t* a_offsets, const double* a_mass, index_t a_count,
                       const double* b, const index_t* b_offsets, const double* b_mass, index_t b_count, index_t dim,
                       const double* period, index_t symmetric, double unmatched, double* totals, index_t threads);

// The processor's peak of fused multiply-adds; see kernels/peak.inl.
using MultiplyAddsFn = index_t(index_t steps, float* values);

#define SPARSEGEN_KERNELS(KERNEL)         \
    KERNEL(mark_active_f32, MarkActiveFn<float>)  \
    KERNEL(mark_active_f64, MarkActiveFn<double>) \
    KERNEL(list_active_f32, ListActiveFn<float>)  \
    KERNEL(list_active_f64, ListActiveFn<double>) \
    KERNEL(deflate_cells, DeflateCellsFn)         \
    KERNEL(deflate_room, DeflateRoomFn)           \
    KERNEL(sum_spots, SumSpotsFn)                 \
    KERNEL(pack_cells_f32, PackCellsFn<float>)   \
    KERNEL(pack_cells_f64, PackCellsFn<double>)  \
    KERNEL(best_cells_f32, BestCellsFn<float>)   \
    KERNEL(best_cells_f64, BestCellsFn<double>)  \
    KERNEL(mirror_cells, MirrorCellsFn)          \
    KERNEL(mirror_sums, MirrorSumsFn)            \
    KERNEL(mirror_descend, MirrorDescendFn)      \
    KERNEL(nearest_f32, NearestFn<float>)  \
    KERNEL(nearest_f64, NearestFn<double>) \
    KERNEL(chamfer_f32, ChamferFn<float>)  \
    KERNEL(chamfer_f64, ChamferFn<double>) \
    KERNEL(assign_costs, AssignFn)         \
    KERNEL(assign_points, AssignPointsFn)        \
    KERNEL(pairwise_flow, FlowFn)                \
    KERNEL(convolve_f32, ConvolveFn<float>)      \
    KERNEL(convolve_f64, ConvolveFn<double>)     \
    KERNEL(correlate_f32, CorrelateFn<float>)    \
    KERNEL(correlate_f64, CorrelateFn<double>)   \
    KERNEL(convolve_bf16, ConvolveBfloatFn)      \
    KERNEL(bfloat_unit, BfloatUnitFn)            \
    KERNEL(sites_keys, SitesKeysFn)              \
    KERNEL(sites_mark, SitesMarkFn)              \
    KERNEL(sites_reach, SitesReachFn)            \
    KERNEL(sites_list, SitesListFn)              \
    KERNEL(sites_search, SitesSearchFn)          \
    KERNEL(sites_group, SitesGroupFn)            \
    KERNEL(sites_order, SitesOrderFn)            \
    KERNEL(multiply_adds, MultiplyAddsFn)

struct Kernels {
#define SPARSEGEN_FIELD(name, ...) __VA_ARGS__* name;
    SPARSEGEN_KERNELS(SPARSEGEN_FIELD)
#undef SPARSEGEN_FIELD
};

// One table per instruction set, filled in isa_*.cpp.
namespace portable {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace sparsegen
