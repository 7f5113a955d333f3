"""Typed tensor operations: native kernels with a plain-PyTorch reference each."""
