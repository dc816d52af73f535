"""The page of `hf-sched design`, made of Gradio's components. It needs no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from hf_sched.designer.controls import control, value_of
from hf_sched.designer.figure import AXES
from hf_sched.designer.other_programs import read_pasted
from hf_sched.designer.page import Design, Designs, Page, label_of, requested, table
from hf_sched.designer.run_form import RunForm
from hf_sched.plots.figures import COLORS
from hf_sched.reference import examples
from hf_sched.reference.description import Argument, describe, summary
from hf_sched.schedules import registry
from hf_sched.schedules.phase_parser import GRAMMAR

_INTRODUCTION = """# Learning-rate designer
See the learning rate of a run before you start it. Choose schedules and describe the run: the plot shows exactly what
the Trainer will use."""
_COLUMNS = """*area*: sum of the learning rates of all steps. *mean / peak*: mean learning rate as a share of the peak.
*samples below 10%*: share of the samples that are trained below 10% of the peak."""
_CSS = """
.gradio-container {max-width: min(1440px, 100vw) !important; margin: auto}
#shown, #shown > * {min-width: 0 !important}
#fields > * {align-items: end; background: var(--block-background-fill)}
h1, strong, th {font-weight: 600 !important}
.tables {overflow-x: auto}
.tables :is(table, thead, tr, th, td) {border: 0 !important; font-size: 13px; font-variant-numeric: tabular-nums}
.tables tr {border-bottom: 1px solid var(--border-color-primary) !important}
.tables :is(th, td) {padding: 4px 14px 4px 0; text-align: left}
#table :is(th, td):first-child {min-width: 110px}
#table :is(th, td):not(:first-child) {text-align: right; padding: 4px 0 4px 14px; white-space: nowrap}
#problems {border-left: 4px solid #d97706; padding-left: 12px}
#facts, #columns {opacity: 0.75}
@media (max-width: 800px) {#shown {order: -1}}
""" + "".join(f".curve-{n} {{border-left: 5px solid {color} !important}}\n" for n, color in enumerate(COLORS))
_LIVE: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}


def launch(app: gr.Blocks, *, port: int | None = None, opens_browser: bool = True) -> None:
    """Serve the page until the process is interrupted; `port` is None for the first free one from 7860 on."""
    fonts = (gr.themes.LocalFont("IBM Plex Sans", (400,)), "system-ui", "sans-serif")
    theme = gr.themes.Default(primary_hue="blue", spacing_size="sm", radius_size="sm", font=fonts)
    theme.set(block_info_text_color="*neutral_500")
    options = {"quiet": True, "share": False, "ssr_mode": False, "footer_links": [], "theme": theme, "css": _CSS}
    app.launch(server_port=port, inbrowser=opens_browser, prevent_thread_lock=True, **options)
    print(f"The designer is at {app.local_url} (Ctrl+C ends it).", flush=True)
    app.block_thread()


def create_app(
    path: Path | None = None,
    *,
    dataset_size: int | None = None,
    num_processes: int | None = None,
    extra: tuple[type, ...] = (),
    reads_runs: bool = True,
) -> gr.Blocks:
    """Create the page.

    Args:
        path: A configuration file or the folder of a run to start with.
        dataset_size: Training samples of the configuration; None to count them if possible.
        num_processes: Processes of the configuration; None for those in the file, or 1.
        extra: Dataclasses of a script's further arguments, for the check of configurations.
        reads_runs: Whether the page may read the folders of runs on this machine.

    Raises:
        ValueError: The folder is not a run, or the configuration cannot be planned.
    """
    form, run, given, found = RunForm(), "", None, ""
    schedules: list[Design] = [("cosine_floor", {}), ("cosine", {})]
    if path and path.is_dir():
        run, (form, *schedules) = f"{path}", requested(path)
    elif path:
        given = path.read_text(encoding="utf-8")
        found, form, *schedules = read_pasted(given, dataset_size, num_processes, extra)
    first: Designs = dict(enumerate(schedules))
    Page(first, form)  # imports transformers before the page is opened
    fields: dict[str, Any] = {}
    with gr.Blocks(title="Learning-rate designer", analytics_enabled=False) as app:
        # The cards are made again if `names` changes: in a card that somebody edits, only arguments do.
        designs, names = gr.State(first), gr.State(None)
        others = gr.State(dict(form.others))
        written = gr.State("")  # what the page itself wrote into the field of phases
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=4, min_width=330):
                menu = [(f"{name}: {summary(name)}", name) for name in registry.available()]
                menu += [(f"{name} (transformers): {summary(name)}", name) for name in registry.BUILTIN_NAMES]
                added = gr.Dropdown(menu, value=None, label="Add a schedule", info="Several can be compared.")

                def make_cards(current: Designs) -> None:
                    for number, key in enumerate(current):
                        _make_card(key, *current[key], designs, f"curve-{number % len(COLORS)}")

                gr.render(inputs=[designs], triggers=[names.change])(make_cards)

            with gr.Column(scale=9, min_width=330, elem_id="shown"):
                axis = gr.Radio(list(AXES), value="Steps", show_label=False, container=False)
                facts = gr.Markdown(elem_id="facts")
                figure = gr.Plot(show_label=False, container=False)
                problems = gr.Markdown(visible=False, elem_id="problems")
                with gr.Row(elem_id="fields"):
                    for name, reader in RunForm.readers().items():
                        label = name.replace("_", "_\u200b")  # lines may break here
                        argument = Argument(label, reader.allowed, required=False, default=None, reader=reader)
                        fields[name] = control(argument, getattr(form, name), elem_id=name)
                figures = gr.Markdown(elem_id="table", elem_classes=["tables"])
                gr.Markdown(_COLUMNS, elem_id="columns")
                selected = gr.Radio(label="Selected schedule", info="Its phases are shaded. It is the one to copy.")
                with gr.Tab("Phases"):
                    about = {"label": "Phases", "info": "Type to change the curve.", "buttons": ["copy"]}
                    phases = gr.Textbox(placeholder="warmup 5% | hold | decay 20% 1-sqrt", elem_id="phases", **about)
                    with gr.Accordion("Grammar", open=False):
                        gr.Markdown(f"```\n{GRAMMAR}\n```")
                with gr.Tab("Copy"):
                    snippets = gr.Markdown()
                with gr.Tab("Configuration"):
                    label = "YAML of TRL, LLaMA-Factory or axolotl"
                    text = gr.Code(given, language="yaml", label=label, lines=8, elem_id="paste", buttons=[])
                    gr.Markdown(
                        "To use the file's own **num_processes** and **dataset_size**, empty these fields first."
                    )
                    read_button = gr.Button("Check it and show its curve", variant="primary")
                    findings = gr.Markdown(found, elem_id="findings", elem_classes=["tables"])
                with gr.Tab("Past run", visible=reads_runs):
                    folder = gr.Textbox(run, label="Folder of a run", placeholder="runs/sft", elem_id="folder")
                    checkpoint = gr.Dropdown([], label="Resume from", info="Draws each `on_resume` policy.")
                    policies = gr.Markdown(elem_id="policies", elem_classes=["tables"])

        def redraw(values: dict[Any, Any]) -> dict[Any, Any]:
            try:
                form = RunForm.read({name: values[field] for name, field in fields.items()})
                form = replace(form, others=values[others])
            except ValueError as error:
                return {problems: gr.Markdown(f"{error}", visible=True)}
            past_run = Path(values[folder]).expanduser() if values[folder] and reads_runs else None
            page = Page(values[designs], form, values[selected], values[axis], past_run, values[checkpoint])
            shown = {
                facts: page.facts,
                figure: page.figure,
                problems: gr.Markdown("\n\n".join(page.problems), visible=bool(page.problems)),
                figures: page.table,
                selected: _selection(values[designs], page.selected),
                snippets: page.snippets,
                policies: table(("on_resume", "next learning rate", ""), page.policies),
            }
            # The text of a typed schedule stays as it is, because somebody may be typing.
            is_typed = page.schedule is not None and page.schedule.name == "phases"
            return shown if is_typed else {**shown, phases: page.phases, written: page.phases}

        def add(name: str, current: Designs) -> dict[Any, Any]:
            key = _free_id(current)
            new = {**current, key: (name, examples.kwargs(describe(name)))}
            return {added: None, designs: new, selected: _selection(new, key)}

        def read(values: dict[Any, Any]) -> dict[Any, Any]:
            try:
                about = RunForm.read({name: values[fields[name]] for name in ("dataset_size", "num_processes")})
                found, form, design = read_pasted(values[text], about.dataset_size, about.num_processes, extra)
            except ValueError as error:
                return {findings: f"**Not possible**: {error}\n\n{getattr(error, 'findings', '')}"}
            new = {_free_id(values[designs]): design}
            shown = {field: getattr(form, name) for name, field in fields.items()}
            return {findings: found, designs: new, others: form.others, selected: _selection(new, None), **shown}

        boxes = [*fields.values()]
        changes = [one.change for one in (designs, others, axis, checkpoint, *boxes)]
        outputs = [facts, figure, problems, figures, selected, phases, written, snippets, policies]
        inputs = {designs, others, selected, axis, folder, checkpoint, *boxes}
        gr.on([app.load, selected.input, folder.submit, *changes], redraw, inputs, outputs, **_LIVE)
        gr.on([app.load, designs.change], lambda all: {key: name for key, (name, _) in all.items()}, designs, names)
        gr.on([app.load, selected.change], _typed_phases, [designs, selected], phases, **_LIVE)
        # A text that is pasted as a whole is no `input` for Gradio.
        typed = [phases.input, phases.submit, phases.blur]
        gr.on(typed, _type_phases, [phases, written, designs, selected], designs, **_LIVE)
        added.select(add, [added, designs], [added, designs, selected])
        read_button.click(read, {text, designs, *boxes}, [findings, designs, others, selected, *boxes])
        if reads_runs:
            gr.on([app.load, folder.submit], _find_checkpoints, folder, checkpoint)
    return app


def _make_card(key: int, name: str, arguments: dict[str, Any], designs: gr.State, style: str) -> None:
    """The controls of one schedule."""
    with gr.Accordion(name, open=name in registry.available(), elem_classes=[style]):
        gr.Markdown(summary(name))
        for argument in describe(name).arguments:
            if argument.name == "phases":
                gr.Markdown("Edit the text under **Phases**.")
                continue
            made = control(argument, arguments.get(argument.name), elem_id=f"{argument.name}-{key}")

            def change(shown: Any, current: Designs, argument: Any = argument) -> Designs:
                new = {**current[key][1], argument.name: value_of(argument, shown)}
                return {**current, key: (name, {one: value for one, value in new.items() if value is not None})}

            events = [made.submit, made.blur] if isinstance(made, gr.Textbox) else [made.input]
            gr.on(events, change, [made, designs], designs, **_LIVE)

        def remove(current: Designs) -> Designs:
            return {other: design for other, design in current.items() if other != key}

        gr.Button("Remove", size="sm").click(remove, designs, designs)


def _free_id(designs: Designs) -> int:
    return max(designs, default=-1) + 1


def _selection(designs: Designs, key: int | None) -> gr.Radio:
    labels = [(label_of(*design), other) for other, design in designs.items()]
    return gr.Radio(labels, value=key, visible=len(labels) > 1)


def _typed_phases(designs: Designs, key: int | None) -> Any:
    """The text of a schedule that consists of its text."""
    return designs[key][1]["phases"] if key in designs and designs[key][0] == "phases" else gr.skip()


def _type_phases(text: str, written: str, designs: Designs, key: int | None) -> Designs:
    """Make the selected schedule what the user's text says."""
    return {**designs, key: ("phases", {"phases": text})} if key in designs and text != written else designs


def _find_checkpoints(folder: str) -> gr.Dropdown:
    found = Path(folder).expanduser().glob("checkpoint-*/scheduler.pt") if folder else ()
    names = sorted((path.parent.name for path in found), key=lambda name: int(name.rpartition("-")[2]))
    return gr.Dropdown(names, value=names[-1] if names else None)
