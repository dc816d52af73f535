"""Pictures of schedules: Matplotlib figures and terminal plots."""
