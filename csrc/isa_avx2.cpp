#define SPARSEGEN_ISA avx2
#define SPARSEGEN_VECTOR_BYTES 32
#include "kernels.inl"
