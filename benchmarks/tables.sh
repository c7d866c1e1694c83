#!/usr/bin/env bash
# Measures all tables of docs/performance.md again: benchmarks/tables.sh [FOLDER], on an idle machine.
# On a GPU `mars5 bench` takes that by itself; the lines that name threads are for a CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-tables}
mkdir -p "$folder"

bench() { # NAME OPTION...: a table and a line of JSON in FOLDER/NAME.txt
    local name=$1
    shift
    echo "== $name: mars5 bench $*"
    python -m mars5 bench "$@" | tee "$folder/$name.txt"
}

cpu() {
    bench nano nano --device cpu --threads 2 --compare naive
    bench nano-1-thread nano --device cpu --threads 1 --compare naive
    bench nano-bfloat16 nano --device cpu --threads 2 --dtype bfloat16 --compare naive
    bench nano-int8 nano --device cpu --threads 2 --quantize int8 --compare naive --rows 2 4 8
    bench full --random full --device cpu --threads 2 --seconds 2 --shallow --compare naive
    bench full-bfloat16 --random full --device cpu --threads 2 --seconds 2 --dtype bfloat16 --compare naive
    bench full-int8 --random full --device cpu --threads 2 --seconds 2 --quantize int8 --compare naive
}

gpu() {
    bench gpu-shallow --random full --device cuda --tokens 256 --steps 16 --compare naive --rows 2 4 8 16
    bench gpu-deep --random full --device cuda --deep --tokens 256 --steps 16 --compare naive
    bench gpu-bfloat16 --random full --device cuda --deep --dtype bfloat16 --tokens 256 --steps 16
}

cpu
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    gpu
fi
python benchmarks/full_size.py --folder "$folder/checkpoint" | tee "$folder/memory.txt"
