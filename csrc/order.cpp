#include "order.hpp"

#include <algorithm>
#include <limits>

namespace sparsegen {
namespace {

template <typename T>
T key(T x) {
    return x == x ? x : std::numeric_limits<T>::infinity();
}

template <typename T>
void split(const T* points, index_t dim, index_t leaf, index_t* begin, index_t* end) {
    const index_t count = end - begin;
    if (count <= leaf) return;
    index_t widest = 0;
    T width = -1;
    for (index_t d = 0; d < dim; ++d) {
        T low = key(points[*begin * dim + d]), high = low;
        for (const index_t* i = begin; i < end; ++i) {
            const T x = key(points[*i * dim + d]);
            low = std::min(low, x);
            high = std::max(high, x);
        }
        if (high - low > width) {
            width = high - low;
            widest = d;
        }
    }
    index_t* middle = begin + (count / 2 + leaf - 1) / leaf * leaf;
    if (middle >= end) middle = begin + leaf;
    std::nth_element(begin, middle, end, [&](index_t i, index_t j) {
        return key(points[i * dim + widest]) < key(points[j * dim + widest]);
    });
    split(points, dim, leaf, begin, middle);
    split(points, dim, leaf, middle, end);
}

template <typename T>
void ordered(const T* points, index_t n, index_t dim, index_t leaf, index_t* order) {
    for (index_t i = 0; i < n; ++i) order[i] = i;
    split(points, dim, leaf, order, order + n);
}

}  // namespace

void compact_order(const float* points, index_t n, index_t dim, index_t leaf, index_t* order) {
    ordered(points, n, dim, leaf, order);
}
void compact_order(const double* points, index_t n, index_t dim, index_t leaf, index_t* order) {
    ordered(points, n, dim, leaf, order);
}

}  // namespace sparsegen
