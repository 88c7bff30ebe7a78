// An order of points in which neighbours in memory are neighbours in space.
#pragma once

#include "kernels.hpp"

namespace sparsegen {

// Fills order[0 .. n) so that each run of `leaf` points is compact: median splits along the longest axis, at multiples
// of `leaf`. points (n, dim) row-major; NaN sorts last.
void compact_order(const float* points, index_t n, index_t dim, index_t leaf, index_t* order);
void compact_order(const double* points, index_t n, index_t dim, index_t leaf, index_t* order);

}  // namespace sparsegen
