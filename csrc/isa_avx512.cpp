#define SPARSEGEN_ISA avx512
#define SPARSEGEN_VECTOR_BYTES 64
#include "kernels.inl"
