#!/usr/bin/env bash
# The main job on a fresh machine: install, train, convert, merge, ask. No GPU and no model download needed.
#
#   bash tools/demo.sh [FOLDER]        results in FOLDER (default demo_out); a second run starts that folder afresh
#   PYTHON=python3.11 MEDTUNE_VENV=~/venvs/medtune bash tools/demo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

CONFIG=med_llama_tiny_lora_medqa_e3
QUESTION="What is the maximum daily dose of paracetamol for adults?"

setup_medtune

OUT="${1:-demo_out}"
if [ -e "$OUT" ] && [ ! -f "$OUT/.medtune_demo" ]; then
  echo "demo: $OUT is there and is not a folder of this demo. Name another: bash tools/demo.sh OTHER_FOLDER" >&2
  exit 2
fi
rm -rf "$OUT"
mkdir -p "$OUT"
cd "$OUT"
touch .medtune_demo
export HF_HUB_OFFLINE=1


run medtune list-cfg -p tiny
run medtune copy-cfg "$CONFIG" .
run medtune train "./${CONFIG}_copy.py"

CHECKPOINT="work_dirs/${CONFIG}_copy/$(basename "$(cat "work_dirs/${CONFIG}_copy/last_checkpoint")")"
run medtune convert pth_to_hf "./${CONFIG}_copy.py" "$CHECKPOINT" ./hf
run medtune convert merge med-llama-tiny ./hf ./merged --max-shard-size 2GB

say "echo '$QUESTION' | medtune chat ./merged"
echo "$QUESTION" | medtune chat ./merged --max-new-tokens 96

printf '\nDone. Everything is in %s.\nTalk to the model: %s chat %s\n' \
  "$PWD" "$VENV/bin/medtune" "$PWD/merged"
echo "It has 7.9 M parameters and learned from 72 rows: it shows that the road works, and knows no medicine."
