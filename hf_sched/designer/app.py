"""The page of `hf-sched design`, made of Gradio's components. It needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from hf_sched.designer.controls import control, first_arguments, value_of
from hf_sched.designer.curves import AXES
from hf_sched.designer.other_programs import Pasted, read_pasted
from hf_sched.designer.page import Design, Page, find_design, findings_text, labels_of, named
from hf_sched.designer.past_run import checkpoints
from hf_sched.designer.run_form import READERS, RunForm
from hf_sched.designer.snippets import as_flags, as_python, as_yaml
from hf_sched.designer.start import Start, design_of
from hf_sched.plots.figures import COLORS
from hf_sched.reference.description import describe, summary
from hf_sched.schedules import registry
from hf_sched.schedules.phase_parser import GRAMMAR

_INTRODUCTION = """# Learning-rate designer
See the learning rate of a run before you start it. Choose schedules and describe the run: the plot shows exactly what
the Trainer will use."""
_COLUMNS = """*area*: sum of the learning rates of all steps. *mean / peak*: mean learning rate as a share of the peak.
*samples below 10%*: share of the samples that are trained below 10% of the peak."""
_LABELS = {
    "learning_rate": "Peak learning rate",
    "max_steps": "Optimizer steps",
    "num_train_epochs": "… or epochs",
    "warmup_steps": "Warmup (50 or 5%)",
    "per_device_train_batch_size": "Batch per process",
    "gradient_accumulation_steps": "Accumulation",
    "num_processes": "Processes",
    "dataset_size": "Training samples",
    "tokens_per_sample": "Tokens per sample",
    "seconds_per_step": "Seconds per step",
}
_HINTS = {"max_steps": "from epochs", "num_processes": "1", "dataset_size": "unknown"}
_CSS = """
.gradio-container {max-width: min(1440px, 100vw) !important; margin: auto}
#shown, #shown > * {min-width: 0 !important}
#options {align-items: center; justify-content: space-between}
#options > * {flex: 0 1 auto; width: auto; min-width: 0 !important}
h1, strong, th {font-weight: 600 !important}
.tables {overflow-x: auto}
.tables :is(table, thead, tr, th, td) {border: 0 !important; font-size: 13px; font-variant-numeric: tabular-nums}
.tables tr {border-bottom: 1px solid var(--border-color-primary) !important}
.tables :is(th, td) {padding: 4px 14px 4px 0; text-align: left}
#table :is(th, td):not(:first-child) {white-space: nowrap}
#table :is(th, td):first-child {min-width: 110px}
#table :is(th, td):not(:first-child) {text-align: right; padding: 4px 0 4px 14px}
#problems {border-left: 4px solid #d97706; padding-left: 12px}
#facts, #columns {opacity: 0.75}
@media (max-width: 800px) {#shown {order: -1}}
""" + "".join(f".curve-{n} {{border-left: 5px solid {color} !important}}\n" for n, color in enumerate(COLORS))
_LIVE: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}


def launch(start: Start, *, port: int | None = None, opens_browser: bool = True) -> None:
    """Serve the page until the process is interrupted.

    Args:
        start: What the page shows first.
        port: The port; None for the first free one from 7860 on.
        opens_browser: Whether to open the page in a browser.
    """
    Page(start.designs, start.form)  # imports transformers before the page is opened
    fonts = (gr.themes.LocalFont("IBM Plex Sans", (400,)), "system-ui", "sans-serif")
    theme = gr.themes.Default(primary_hue="blue", spacing_size="sm", radius_size="sm", font=fonts)
    theme.set(block_info_text_color="*neutral_500")
    app = create_app(start)
    app.launch(
        server_port=port,
        inbrowser=opens_browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        footer_links=[],
        theme=theme,
        css=_CSS,
    )
    print(f"The designer is at {app.local_url} (Ctrl+C ends it).", flush=True)
    app.block_thread()


def create_app(start: Start) -> gr.Blocks:
    """Create the page."""
    with gr.Blocks(title="Learning-rate designer", analytics_enabled=False) as app:
        # `cards` counts the changes after which the cards of the schedules are made again.
        designs, cards, pasted = gr.State(start.designs), gr.State(0), gr.State(None)
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=4, min_width=330):
                menu = [(f"{name}: {summary(name)}", name) for name in registry.available()]
                menu += [(f"{name} (transformers): {summary(name)}", name) for name in registry.BUILTIN_NAMES]
                added = gr.Dropdown(menu, value=None, label="Add a schedule", info="Several can be compared.")

                def make_cards(current: list[Design]) -> None:
                    for number, design in enumerate(current):
                        _card(number, design, designs, cards)

                gr.render(inputs=[designs], triggers=[app.load, cards.change])(make_cards)
            with gr.Column(scale=9, min_width=330, elem_id="shown"):
                with gr.Row(elem_id="options"):
                    axis = gr.Radio(list(AXES), value="Steps", show_label=False, container=False)
                    logarithmic = gr.Checkbox(False, label="Logarithmic", container=False)
                facts = gr.Markdown(elem_id="facts")
                figure = gr.Plot(show_label=False, container=False)
                problems = gr.Markdown(visible=False, elem_id="problems")
                fields = _run_fields(start.form)
                table = gr.Markdown(elem_id="table", elem_classes=["tables"])
                gr.Markdown(_COLUMNS, elem_id="columns")
                selected = gr.Radio(label="Selected schedule", info="Its phases are shaded. It is the one to copy.")
                with gr.Tabs():
                    with gr.Tab("Phases"):
                        phases = gr.Textbox(
                            label="Phases",
                            info="Type to change the curve.",
                            placeholder="warmup 5% | hold | decay 20% 1-sqrt",
                            elem_id="phases",
                            buttons=["copy"],
                        )
                        with gr.Accordion("Grammar", open=False):
                            gr.Code(GRAMMAR, language=None, show_line_numbers=False, show_label=False)
                    with gr.Tab("Copy"):
                        snippets = [
                            _snippet(*one) for one in (("YAML", "yaml"), ("Flags", "shell"), ("Python", "python"))
                        ]
                    with gr.Tab("Configuration"):
                        pasting = _paste_fields(start)
                    with gr.Tab("Past run", visible=start.reads_runs):
                        folder = gr.Textbox(
                            start.run, label="Folder of a run", placeholder="runs/sft", elem_id="folder"
                        )
                        checkpoint = gr.Dropdown([], label="Resume from", info="Draws each `on_resume` policy.")
                        policies = gr.Markdown(elem_id="policies", elem_classes=["tables"])

        inputs = [designs, selected, axis, logarithmic, pasted, folder, checkpoint, *fields]
        outputs = [facts, figure, problems, table, selected, phases, *snippets, policies]

        def redraw(*values: Any) -> list[Any]:
            return _contents(start, *values)

        changes = [one.change for one in (designs, pasted, axis, logarithmic, checkpoint, *fields)]
        gr.on([app.load, selected.input, *changes], redraw, inputs, outputs, **_LIVE)
        added.select(_add, [added, designs, cards, *fields], [added, designs, cards, selected])
        gr.on([app.load, selected.change], _typed_phases, [designs, selected], phases, **_LIVE)
        phases.input(_type_phases, [phases, designs, selected, cards], [designs, cards], **_LIVE)
        if start.reads_runs:
            found = gr.on([app.load, folder.submit], _find_checkpoints, folder, checkpoint)
            found.then(redraw, inputs, outputs, **_LIVE)

        def show(text: str, *texts: str) -> tuple[Pasted | None, str]:
            try:
                read = _read(text, texts, start)
            except ValueError as error:
                return None, f"**Not possible**: {error}"
            return read, findings_text(read)

        def edit(text: str, current: list[Design], version: int, *texts: str) -> list[Any]:
            try:
                form, schedule = design_of(_read(text, texts, start))
            except ValueError as error:
                return [f"**Not possible**: {error}", *[gr.skip()] * (3 + len(texts))]
            new = _new_design(current, schedule.name, dict(schedule.arguments))
            return ["", [new], version + 1, _selection([new], new["id"]), *form.texts.values()]

        pasting["show"].click(show, [pasting["text"], *fields], [pasted, pasting["findings"]])
        edited = [pasting["findings"], designs, cards, selected, *fields]
        pasting["edit"].click(edit, [pasting["text"], designs, cards, *fields], edited)
    return app


def _card(number: int, design: Design, designs: gr.State, cards: gr.State) -> None:
    """The controls of one schedule."""
    name, own_id = design["name"], design["id"]
    is_open = name in registry.available()
    with gr.Accordion(name, open=is_open, elem_classes=[f"curve-{number % len(COLORS)}"]):
        gr.Markdown(summary(name))
        for argument in describe(name).arguments:
            if argument.name == "phases":
                gr.Markdown("Edit the text under **Phases**.")
                continue
            value = design["arguments"].get(argument.name)
            made = control(name, argument, value, elem_id=f"{argument.name}-{own_id}")

            def change(shown: Any, current: list[Design], argument: Any = argument) -> list[Design]:
                value = value_of(name, argument, shown)
                new = {**find_design(current, own_id)["arguments"], argument.name: value}  # type: ignore[index]
                given = {key: one for key, one in new.items() if one is not None}
                return [{**one, "arguments": given} if one["id"] == own_id else one for one in current]

            events = [made.submit, made.blur] if isinstance(made, gr.Textbox) else [made.input]
            gr.on(events, change, [made, designs], designs, **_LIVE)

        def remove(current: list[Design], version: int) -> tuple[list[Design], int]:
            return [one for one in current if one["id"] != own_id], version + 1

        gr.Button("Remove", size="sm").click(remove, [designs, cards], [designs, cards])


def _run_fields(form: RunForm) -> list[gr.Textbox]:
    names, made = list(form.texts), []
    for row in (names[:5], names[5:]):
        with gr.Row():
            for name in row:
                about: dict[str, Any] = {"label": _LABELS[name], "placeholder": _HINTS.get(name), "elem_id": name}
                made.append(gr.Textbox(form.texts[name], min_width=118, max_lines=1, **about))
    return made


def _snippet(name: str, language: Any) -> gr.Code:
    label = f"{name} of the selected schedule"
    return gr.Code(
        language=language,
        label=label,
        interactive=False,
        show_line_numbers=False,
        elem_id=f"copy-{language}",
        buttons=["copy"],
    )


def _paste_fields(start: Start) -> dict[str, Any]:
    label = "YAML of TRL, LLaMA-Factory or axolotl"
    made: dict[str, Any] = {}
    made["text"] = gr.Code(
        start.text or None, language="yaml", label=label, interactive=True, lines=8, elem_id="paste", buttons=[]
    )
    gr.Markdown("**Processes** and **Training samples** above apply to it. Leave them empty to use the file's own.")
    with gr.Row():
        made["show"] = gr.Button("Show its curve and check it", variant="primary")
        made["edit"] = gr.Button("Edit it in the form")
    findings = findings_text(start.pasted) if start.pasted else ""
    made["findings"] = gr.Markdown(findings, elem_id="findings", elem_classes=["tables"])
    return made


def _read(text: str, texts: tuple[str, ...], start: Start) -> Pasted:
    form = RunForm.read(dict(zip(READERS, texts, strict=True)))
    about = {"dataset_size": form.dataset_size, "num_processes": form.num_processes}
    return read_pasted(text, **about, extra=start.extra)


def _contents(
    start: Start,
    designs: list[Design],
    selected: int | None,
    axis: str,
    logarithmic: bool,
    pasted: Pasted | None,
    folder: str,
    checkpoint: str | None,
    *texts: str,
) -> list[Any]:
    try:
        form = RunForm.read(dict(zip(READERS, texts, strict=True)))
    except ValueError as error:
        return [gr.skip(), gr.skip(), gr.Markdown(f"{error}", visible=True), *[gr.skip()] * 7]
    run = Path(folder).expanduser() if folder and start.reads_runs else None
    page = Page(designs, form, selected, axis, logarithmic, pasted, run, checkpoint)
    chosen = find_design(designs, selected)
    # The text of a typed schedule stays as it is, because somebody may be typing.
    is_typed = chosen is not None and chosen["name"] == "phases"
    return [
        page.facts,
        page.figure,
        gr.Markdown("\n\n".join(page.problems), visible=bool(page.problems)),
        page.table,
        _selection(designs, chosen["id"] if chosen else None),
        gr.skip() if is_typed else page.phases,
        *(write(form, named(chosen)) if chosen else "" for write in (as_yaml, as_flags, as_python)),
        page.policies_table,
    ]


def _selection(designs: list[Design], selected: int | None) -> Any:
    ids = [design["id"] for design in designs]
    return gr.Radio(list(zip(labels_of(designs), ids, strict=True)), value=selected, visible=len(ids) > 1)


def _add(name: str, designs: list[Design], version: int, *texts: str) -> list[Any]:
    try:
        form = RunForm.read(dict(zip(READERS, texts, strict=True)))
    except ValueError:
        form = RunForm()
    new = _new_design(designs, name, first_arguments(name, form))
    return [None, [*designs, new], version + 1, _selection([*designs, new], new["id"])]


def _new_design(designs: list[Design], name: str, arguments: dict[str, Any]) -> Design:
    return {"id": 1 + max((one["id"] for one in designs), default=-1), "name": name, "arguments": arguments}


def _typed_phases(designs: list[Design], selected: int | None) -> Any:
    """The text of a schedule that consists of its text."""
    chosen = find_design(designs, selected)
    return chosen["arguments"]["phases"] if chosen and chosen["name"] == "phases" else gr.skip()


def _type_phases(text: str, designs: list[Design], selected: int | None, version: int) -> tuple[list[Design], int]:
    """Make the selected schedule what the text says."""
    chosen = find_design(designs, selected)
    if chosen is None:
        return designs, version
    typed = {"id": chosen["id"], "name": "phases", "arguments": {"phases": text}}
    return [typed if one is chosen else one for one in designs], version + (chosen["name"] != "phases")


def _find_checkpoints(folder: str) -> Any:
    names = checkpoints(Path(folder).expanduser()) if folder else []
    return gr.Dropdown(names, value=names[-1] if names else None)
