"""Writes exported files: ONNX, OpenVINO IR, 8-bit integers. Needs torch."""
