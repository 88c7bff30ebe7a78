// Sums of amounts by cell, row by row: a dense row of scratch, and a bit for each cell that was touched.
#pragma once

#include <cstring>

#include "buffer.hpp"

namespace sparsegen::SPARSEGEN_ISA {

// Spots of row b lie in offsets[b] .. offsets[b + 1], at cells 0 .. cells - 1; adds them in their order. The active
// cells of all rows, rising, go to places (as row * cells + cell) and sums. Returns how many there are.
SumSpotsFn sum_spots;
index_t sum_spots(const std::int32_t* spots, const float* amounts, const index_t* offsets, index_t rows, index_t cells,
                  index_t* places, float* sums) {
    const index_t words = (cells + 63) / 64;
    Buffer<float> row_sums(cells);
    Buffer<std::uint64_t> touched(words);
    std::memset(row_sums.data(), 0, static_cast<std::size_t>(cells) * sizeof(float));
    std::memset(touched.data(), 0, static_cast<std::size_t>(words) * sizeof(std::uint64_t));
    index_t active = 0;
    for (index_t row = 0; row < rows; ++row) {
        for (index_t i = offsets[row]; i < offsets[row + 1]; ++i) {
            const index_t cell = spots[i];
            row_sums[cell] += amounts[i];
            touched[cell / 64] |= std::uint64_t{1} << (cell % 64);
        }
        for (index_t word = 0; word < words; ++word) {
            for (std::uint64_t left = touched[word]; left != 0; left &= left - 1) {
                const index_t cell = word * 64 + __builtin_ctzll(left);
                if (row_sums[cell] != 0) {
                    places[active] = row * cells + cell;
                    sums[active++] = row_sums[cell];
                    row_sums[cell] = 0;
                }
            }
            touched[word] = 0;
        }
    }
    return active;
}

}  // namespace sparsegen::SPARSEGEN_ISA
