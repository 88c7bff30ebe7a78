// Everything that is compiled once per instruction set; SPARSEGEN_ISA names the namespace.
#include "kernels.hpp"

#include "buffer.hpp"
#include "parallel.hpp"
#include "simd.hpp"

#include "kernels/active.inl"
#include "kernels/assignment.inl"
#include "kernels/chamfer.inl"
#include "kernels/convolve.inl"
#include "kernels/bfloat.inl"
#include "kernels/deflate.inl"
#include "kernels/flow.inl"
#include "kernels/mirrors.inl"
#include "kernels/nearest.inl"
#include "kernels/peak.inl"
#include "kernels/potential.inl"
#include "kernels/sites.inl"
#include "kernels/spots.inl"

namespace sparsegen::SPARSEGEN_ISA {

extern const Kernels kernels;
const Kernels kernels = {
#define SPARSEGEN_ENTRY(name, ...) &name,
    SPARSEGEN_KERNELS(SPARSEGEN_ENTRY)
#undef SPARSEGEN_ENTRY
};

}  // namespace sparsegen::SPARSEGEN_ISA
