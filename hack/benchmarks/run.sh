#!/usr/bin/env bash
# Runs benchmarks, and makes a page of what they measured:
#   full            all, into docs/benchmarks.md
#   quick           all, much smaller, to see that they run
#   NAME            one: flush, scaling, warmup, entries, losses, memory or primitives
# ENTRIES, KEYS and REPEATS change the sizes. Only the full run writes into docs/; the others write into RESULTS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD what=$1
results=${RESULTS:-$root/bin/bench}/$what
entries=${ENTRIES:-10000} keys=${KEYS:-1000000} repeats=${REPEATS:-3} rounds=10 sizes=()
if [[ $what == quick ]]; then
  entries=${ENTRIES:-300} keys=${KEYS:-50000} repeats=${REPEATS:-1} rounds=1 sizes=(-calm 1s -repairs 20)
fi

# primitives are compiled once and run in turns: what is compared should be measured at about the same time.
primitives() {
  go test -c -o "$results/bench.test" ./test/bench
  for ((i = 0; i < rounds; i++)); do
    (cd test/bench && "$results/bench.test" -test.run '^$' -test.bench Primitives -test.benchtime 100ms)
  done >"$results/primitives.out"
  local benchstat=(go tool -modfile=hack/tools/go.mod benchstat -col '/client@(go-redis cachewright)' -row /op)
  "${benchstat[@]}" "$results/primitives.out" | tee "$results/primitives.txt"
  "${benchstat[@]}" -format csv "$results/primitives.out" >"$results/primitives.csv" 2>/dev/null
}

# measure the benchmarks whose names match, without regard to case.
measure() {
  KUBEBUILDER_ASSETS=$root/bin go test ./test/bench -run '^$' -bench "(?i)^Benchmark($1)\$" -benchtime 1x -timeout 1h \
    -entries "$entries" -keys "$keys" -repeats "$repeats" -output "$results" "${sizes[@]}"
}

rm -rf "$results"
mkdir -p "$results"
page=$results/benchmarks.md
case $what in
  full) page=$root/docs/benchmarks.md ;&
  quick) measure 'flush|scaling|warmup|entries|losses|memory' && primitives ;;
  primitives) primitives ;;
  *) measure "$what" ;;
esac
go -C hack/benchmarks run . -results "$results" -out "$page"
echo "see ${page#"$root"/}"
