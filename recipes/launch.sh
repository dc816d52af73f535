#!/bin/bash
# `accelerate launch` for schedulers that end a job by SIGTERM: the signal goes to the processes that train, which save a
# checkpoint (`enable_jit_checkpoint: true`, see preemption.py). The launcher would pass it on to their data loaders, too,
# and kill all of them 30 s later; with a single process it would pass on nothing.
set -u

accelerate launch "$@" &
launcher=$!
# shellcheck disable=SC2046  # a word for each process
trap 'kill -TERM $(< "/proc/$launcher/task/$launcher/children") 2> /dev/null || kill -TERM "$launcher"' TERM

wait "$launcher"
status=$?
while kill -0 "$launcher" 2> /dev/null; do # a signal has cut the wait short
    wait "$launcher"
    status=$?
done
exit "$status"
