"""`python -m hf_sched` is `hf-sched`."""

from hf_sched.cli import main

main()
