#!/usr/bin/env bash
# Gradescope runs this once, when it builds the image of the assignment.
set -euo pipefail
apt-get update -q && apt-get install -y -q python3 python3-pip python3-venv git
python3 -m venv /opt/pai
# PyTorch without CUDA is a tenth of the size.
/opt/pai/bin/pip install -q torch torchvision --index-url https://download.pytorch.org/whl/cpu
/opt/pai/bin/pip install -q "pai-lite[notebooks] @ git+@REPOSITORY@"
