"""`hf-sched design`: shape the learning rate of a run in the browser."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click


@click.command("design", short_help="Shape the learning rate of a run in the browser.")
@click.argument("path", metavar="[CONFIG|RUN]", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--num-processes", type=int, metavar="N", help="Processes; by default those of CONFIG, or 1.")
@click.option("--dataset-size", type=int, metavar="N", help="Training samples, if they cannot be counted.")
@click.option("--port", type=int, metavar="N", help="The port of the page; by default the first free one from 7860 on.")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
def design(
    path: Path | None, num_processes: int | None, dataset_size: int | None, port: int | None, no_browser: bool
) -> None:
    """See and change the learning rate of a run in the browser, and copy the result.

    CONFIG is a YAML or JSON file of training arguments, RUN the output_dir of a Trainer. The page needs no network.
    """
    if not (find_spec("gradio") and find_spec("plotly")):
        raise ValueError("`hf-sched design` needs Gradio and Plotly: pip install 'hf_sched[ui]'")
    from hf_sched.cli.training_file import recipe_arguments
    from hf_sched.designer.app import create_app, launch

    page = create_app(path, dataset_size=dataset_size, num_processes=num_processes, extra=recipe_arguments())
    launch(page, port=port, opens_browser=not no_browser)
