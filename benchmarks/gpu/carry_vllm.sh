#!/bin/sh
# Packs vLLM for a GPU machine without a network, in parts of 46 MB: benchmarks/gpu/carry_vllm.sh [FOLDER]
#
# For the image of carry.sh, whose PyTorch this vLLM is built for; what the image has is left out. FOLDER (.carry-vllm) then
# holds vllm.tar.xz.00 and on, to be carried one or more at a time, and setup.sh, which joins and unpacks what has come.
set -eu
to=$(mkdir -p "${1:-.carry-vllm}" && cd "${1:-.carry-vllm}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --abi cp312 --abi abi3 --abi none --platform manylinux_2_35_x86_64 --platform manylinux_2_34_x86_64 \
  --platform manylinux_2_31_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
  --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_12_x86_64 \
  --platform manylinux_2_5_x86_64 --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 \
  --platform manylinux1_x86_64 --platform any --dest wheels \
  vllm==0.20.2 flashinfer-python==0.6.8.post1 xgrammar==0.1.32 compressed-tensors==0.15.0.1 depyf==0.20.0 \
  lm-format-enforcer==0.11.3 llguidance==1.3.0 outlines_core==0.2.14 diskcache==5.6.3 lark==1.2.2 \
  apache-tvm-ffi==0.1.9 mistral_common==1.11.0 pydantic==2.13.4 pydantic-core==2.46.4 \
  model-hosting-container-standards==0.1.13 openai==2.29.0 cachetools==8.0.2 blake3==1.0.11 fastapi==0.165.0 \
  starlette==1.10.0 jiter==0.19.0 distro==1.9.0 prometheus-fastapi-instrumentator==8.1.0 prometheus-client==0.26.0 \
  interegular==0.3.3 partial-json-parser==0.2.1.1.post7 pyzmq==27.3.0 msgspec==0.23.0 gguf==0.19.0 loguru==0.7.3 \
  astor==0.8.1 watchfiles==1.3.0 python-json-logger==4.2.0 pybase64==1.5.1 cbor2==6.3.0 ijson==3.6.0 \
  setproctitle==1.3.8 openai-harmony==0.0.8 opentelemetry-sdk==1.45.2 opentelemetry-api==1.45.2 \
  opentelemetry-semantic-conventions==0.66b2 pydantic-extra-types==2.11.1 pycountry==26.2.16 jsonschema==4.26.0 \
  referencing==0.37.0 rpds-py==2026.9.1 jsonschema-specifications==2025.9.1 supervisor==4.3.0 jmespath==1.1.0 \
  uvicorn==0.54.0 python-multipart==0.0.34 sse-starlette==3.7.0 httpx==0.28.1 httpcore==1.0.9 h11==0.16.0 \
  anyio==4.16.0 sniffio==1.3.1 httpx-sse==0.4.3 pydantic-settings==2.16.3 python-dotenv==1.2.4 \
  typing-inspection==0.4.5 annotated-types==0.8.0 websockets==17.4
mkdir site
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" site; done
# The image's card runs FlashAttention 3; deep_gemm's headers are for a format of products that is not measured.
rm -rf site/vllm/vllm_flash_attn/_vllm_fa2_C* site/vllm/third_party/deep_gemm/include site/pycountry/locales
rm -f "$to"/vllm.tar.xz.*
tar cf - -C site . | xz -T0 -6 | split -b 44M -d - "$to/vllm.tar.xz."
cat > "$to/setup.sh" << 'END'
# Source it on the GPU machine, after carry.sh's: keeps the parts that are here, and unpacks them once all are.
parts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p /tmp/vllm-parts
for part in "$parts"/vllm.tar.xz.*; do [ ! -e "$part" ] || cp "$part" /tmp/vllm-parts/ || return 1; done
if [ "$(ls /tmp/vllm-parts | wc -l)" != COUNT ]; then
  echo "vLLM: $(ls /tmp/vllm-parts | wc -l) of COUNT parts are here"
  return
fi
if [ ! -e /tmp/vllm/ready ]; then
  mkdir -p /tmp/vllm && cat /tmp/vllm-parts/* | python3 -c "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|xz').extractall('/tmp/vllm', filter='tar')" && touch /tmp/vllm/ready || return 1
fi
export PYTHONPATH=/tmp/vllm:$PYTHONPATH
# FlashInfer's kernels would be compiled, for minutes.
export VLLM_USE_FLASHINFER_MOE_FP16=0 VLLM_USE_FLASHINFER_MOE_FP8=0 VLLM_USE_FLASHINFER_MOE_FP4=0 VLLM_USE_FLASHINFER_SAMPLER=0
END
sed -i "s/COUNT/$(ls "$to" | grep -c xz)/g" "$to/setup.sh"
ls -l "$to" wheels
