"""Reports on finished or interrupted runs, in Markdown and HTML: `hf-sched report`."""
