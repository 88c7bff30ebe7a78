#define SPARSEGEN_ISA portable
#define SPARSEGEN_VECTOR_BYTES 16
#include "kernels.inl"
