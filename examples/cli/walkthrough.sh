#!/bin/sh
# All commands on a small synthetic product: train, predict, evaluate, recalibrate, export, predict without torch.
set -eu
mkdir -p hyperspot-examples
cd hyperspot-examples
python -c 'from hyperspot import make_product_set; make_product_set("product", train=30, good=6, defective=6, size=192)'

hyperspot info product
hyperspot train product -o part.safetensors --short-side 192 --false-alarm-rate 0.1
hyperspot info part.safetensors
hyperspot predict part.safetensors product/test/missing_bolt --out results --overwrite
find product/test -name '*.png' | hyperspot predict part.safetensors - --json
hyperspot evaluate part.safetensors product --report report.html
hyperspot evaluate part.safetensors product --report strict.html --false-alarm-rate 0.2 --json
hyperspot recalibrate part.safetensors product/test/good -o recalibrated.safetensors --false-alarm-rate 0.2 --overwrite

hyperspot export part.safetensors -o part.onnx
hyperspot predict part.onnx product/test/missing_bolt
