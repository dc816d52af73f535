#!/bin/bash
# `accelerate launch` for job schedulers that end a job by SIGTERM. This script sends the signal to the training
# processes, which save a checkpoint (`enable_jit_checkpoint: true`). The launcher itself would also signal their data
# loaders and kill all of them after 30 s; with a single process it would not pass the signal on.
set -u

accelerate launch "$@" &
launcher=$!
# shellcheck disable=SC2046  # one word per process
trap 'kill -TERM $(< "/proc/$launcher/task/$launcher/children") 2> /dev/null || kill -TERM "$launcher"' TERM

wait "$launcher"
status=$?
while kill -0 "$launcher" 2> /dev/null; do # a signal interrupted the wait
    wait "$launcher"
    status=$?
done
exit "$status"
