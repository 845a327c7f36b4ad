"""A GPU that is not there: tensors that say "cuda" and compute on the CPU, so that mixed devices fail as on a real one.

Unlike `FakeTensorMode`, values are real: what reads them (`.item()`, `.tolist()`) works, and `.numpy()` fails as it
does on a GPU. Gradients cannot be asked for: PyTorch's backward pass wants the device itself.
"""

from contextlib import nullcontext
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
MAY_MIX = {  # what takes tensors of two devices on a real GPU, too
    *(aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put.default, aten.index_put_.default),
    aten._index_put_impl_.default,
}


class OnGpu(Tensor):
    """A tensor that says "cuda"; its values are `held` on the CPU."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        return Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device="cuda:0",
        )  # fmt: skip

    def __init__(self, held: Tensor):
        self.held = held

    def tolist(self) -> list:
        return self.held.tolist()

    def __repr__(self) -> str:
        return f"OnGpu({self.held})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


class PretendGpu(TorchDispatchMode):
    """Inside of it, `device="cuda"` gives such tensors, and `device="cpu"` plain ones."""

    def __enter__(self):
        torch._C._ensureCUDADeviceGuardSet()  # so that nothing asks a driver which device is the current one
        self.no_driver = nullcontext() if torch.cuda.is_available() else patch("torch.cuda._lazy_init", lambda: None)
        self.no_driver.__enter__()
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device="cuda")` comes here to be moved
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # `module.to` gives it new parameters
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        self.no_driver.__exit__(*error)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


def run(operation, args: tuple, kwargs: dict):
    """The operation on the held tensors; its result is where a GPU would have put it."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = any(isinstance(tensor, OnGpu) for tensor in given)
    strangers = [tensor for tensor in given if not isinstance(tensor, OnGpu) and tensor.ndim]
    if on_gpu and strangers and operation not in MAY_MIX:
        raise RuntimeError(f"{operation}: expected all tensors on one device, found cuda:0 and cpu")
    wanted = kwargs.get("device")
    args, kwargs = tree_map_only(OnGpu, lambda tensor: tensor.held, (args, kwargs))
    if wanted is not None:
        on_gpu = torch.device(wanted).type == "cuda"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    with torch.inference_mode(False), torch.no_grad():
        result = operation(*args, **kwargs)
        return _returned(operation, given, result, on_gpu)


def _returned(operation, given: list[Tensor], result, on_gpu: bool):
    changed = next((tensor for tensor in given if _held(tensor) is result), None)
    if changed is not None and operation._schema.is_mutable:  # in place
        return changed
    return tree_map_only(Tensor, OnGpu, result) if on_gpu else result


def _held(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, OnGpu) else tensor
