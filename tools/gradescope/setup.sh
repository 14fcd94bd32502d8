#!/usr/bin/env bash
# Gradescope runs this once, when it builds the image of the assignment.
set -euo pipefail
root="${AUTOGRADER_ROOT:-/autograder}"
apt-get update -q
# The default Python of Ubuntu 22.04 is older than the package wants.
apt-get install -y -q git python3.11-venv || apt-get install -y -q git python3-venv
"$(command -v python3.11 || command -v python3)" -m venv "$root/venv"
"$root/venv/bin/pip" install -q "pai-lite[notebooks] @ git+@REPOSITORY@"
