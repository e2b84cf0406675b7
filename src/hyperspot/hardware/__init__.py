"""CPU features, devices, CUDA graphs and the compiled kernels."""
