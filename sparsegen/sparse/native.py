"""The native back end: fused gather, product and sum on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegen.kernels.native import extension, threads
from sparsegen.sparse.backends import BACKENDS, Capabilities, result_type
from sparsegen.sparse.bitmap import ordered
from sparsegen.sparse.kernel_map import KernelMap

__all__ = ["NativeBackend"]

_native = extension()
_SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
# What multiplies bfloat16: 0 nothing made for it, 1 AVX512-BF16, 2 AMX.
_BFLOAT_UNIT = 0 if _native is None else _native.bfloat_unit()


class NativeBackend:
    """Implicit matrix products: a tile of outputs stays in cache while every tap adds to it.

    Sums run over taps and channels in their order: results do not depend on the number of threads. On processors that
    have instructions for it, features and weights may be bfloat16: products are exact, sums and results float32.
    """

    name = "native"
    capabilities = Capabilities(
        dimensions=(1, 2, 3, 4),
        dtypes=(torch.float32, torch.float64, *((torch.bfloat16,) if _BFLOAT_UNIT else ())),
        devices=("cpu",),
        double_backward=True,
        deterministic=("cpu",),
        periodic=True,
    )

    def convolve(self, x: Tensor, weight: Tensor, kernel_map: KernelMap, bias: Tensor | None = None) -> Tensor:
        """See :class:`~sparsegen.sparse.backends.Backend`."""
        kernel_map = ordered(kernel_map)
        x = x.contiguous()
        taps, cin, cout = weight.shape
        rows = kernel_map.sizes[1]
        out = x.new_empty(rows, cout, dtype=result_type(x))
        bias = None if bias is None else bias.to(out.dtype).contiguous()
        unit = (_BFLOAT_UNIT,) if x.dtype == torch.bfloat16 else ()
        getattr(_native, "convolve_" + _SUFFIX[x.dtype])(
            x.data_ptr(),
            cin,
            weight.data_ptr(),
            taps,
            cout,
            *weight.stride(),
            kernel_map.inputs.data_ptr(),
            kernel_map.outputs.data_ptr(),
            kernel_map.starts.data_ptr(),
            -1 if kernel_map.identity is None else kernel_map.identity,
            rows,
            0 if bias is None else bias.data_ptr(),
            out.data_ptr(),
            *unit,
            threads(),
        )
        return out

    def correlate(self, x: Tensor, y: Tensor, kernel_map: KernelMap) -> Tensor:
        """See :class:`~sparsegen.sparse.backends.Backend`."""
        if x.dtype == torch.bfloat16:
            x, y = x.float(), y.float()
        taps, cin, cout = len(kernel_map.starts) - 1, x.shape[1], y.shape[1]
        out = x.new_empty(taps, cin, cout)
        strides = out.stride()[1:]
        # The second factor's channels fill whole vectors: the one that wastes less of them goes there.
        lanes = 64 // x.element_size()
        if cout * -(-cin // lanes) < cin * -(-cout // lanes):
            x, y, kernel_map, strides, (cin, cout) = y, x, kernel_map.swapped, strides[::-1], (cout, cin)
        x, y = x.contiguous(), y.contiguous()
        getattr(_native, "correlate_" + _SUFFIX[x.dtype])(
            x.data_ptr(),
            cin,
            y.data_ptr(),
            cout,
            len(y),
            kernel_map.inputs.data_ptr(),
            kernel_map.outputs.data_ptr(),
            kernel_map.starts.data_ptr(),
            taps,
            -1 if kernel_map.identity is None else kernel_map.identity,
            out.data_ptr(),
            *strides,
            threads(),
        )
        return out


if _native is not None:
    BACKENDS.register("native")(NativeBackend())
