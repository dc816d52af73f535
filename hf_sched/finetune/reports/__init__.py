"""Markdown and HTML reports of finished or interrupted runs."""
