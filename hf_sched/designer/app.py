"""The page of `hf-sched design`, made of Gradio's components. It needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from hf_sched.designer import controls, past_run
from hf_sched.designer.curves import AXES
from hf_sched.designer.other_programs import Pasted, read_pasted
from hf_sched.designer.run_form import READERS, RunForm
from hf_sched.designer.session import Design, labels_of, named, view
from hf_sched.plots.figures import COLORS
from hf_sched.reference.description import summary
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.schedules import registry
from hf_sched.schedules.phase_parser import GRAMMAR

_LABELS = {
    "learning_rate": "Peak learning rate",
    "max_steps": "Optimizer steps",
    "num_train_epochs": "or epochs",
    "warmup_steps": "Warmup (50 or 5%)",
    "per_device_train_batch_size": "Batch per process",
    "gradient_accumulation_steps": "Accumulation",
    "num_processes": "Processes",
    "dataset_size": "Training samples",
    "tokens_per_sample": "Tokens per sample",
    "seconds_per_step": "Seconds per step",
}
_INTRODUCTION = """# Learning-rate designer
See the learning rate of a run before you start it. Choose schedules and describe the run; the plot shows exactly what the
Trainer will use."""
_PROGRAMS = "TRL, transformers, LLaMA-Factory or axolotl"
_CSS = """
.gradio-container {max-width: min(1440px, 100vw) !important; margin: auto}
#shown, #shown > * {min-width: 0 !important}
#options {align-items: center}
#options > * {flex: 0 0 auto; width: auto; min-width: 0 !important}
#figures {overflow-x: auto}
#figures table {width: 100%; border: 0 !important; border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums}
#figures th {font-weight: 500; opacity: 0.7; cursor: help}
#figures th, #figures td {padding: 5px 0 5px 14px; text-align: right; white-space: nowrap; border: 0;
  border-bottom: 1px solid var(--border-color-primary)}
#figures th:first-child, #figures td:first-child {text-align: left; padding-left: 0}
#problems {border-left: 4px solid #d97706; padding-left: 12px}
#facts {opacity: 0.75}
@media (max-width: 800px) {#shown {order: -1}}
""" + "".join(f".curve-{n} {{border-left: 5px solid {color} !important}}\n" for n, color in enumerate(COLORS))


@dataclass(frozen=True)
class Start:
    """What the page shows first."""

    form: RunForm = RunForm()
    schedules: Sequence[NamedSchedule] = (NamedSchedule("cosine_floor"), NamedSchedule("cosine"))
    configuration: str = ""
    run: str = ""
    extra: tuple[type, ...] = field(default=(), compare=False)
    """Dataclasses of a script's further arguments, for the check of a configuration."""
    about: Mapping[str, str] = field(default_factory=dict, compare=False)
    """`dataset_size` and `num_processes` of the configuration, if they are given."""
    reads_runs: bool = True
    """Whether the page may read the folders of runs on this machine."""


def launch(start: Start, *, port: int | None = None, opens_browser: bool = True, host: str | None = None) -> None:
    """Serve the page until the process is interrupted."""
    view(_designs(start), start.form)  # imports transformers before the page is opened
    theme = gr.themes.Default(primary_hue="blue", spacing_size="sm", radius_size="sm")
    create_app(start).launch(
        server_port=port,
        server_name=host,
        inbrowser=opens_browser,
        share=False,
        ssr_mode=False,
        footer_links=[],
        theme=theme,
        css=_CSS,
    )


def create_app(start: Start) -> gr.Blocks:
    """Create the page."""
    with gr.Blocks(title="Learning-rate designer", analytics_enabled=False) as app:
        designs, structure, pasted = gr.State(_designs(start)), gr.State(0), gr.State(None)
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=4, min_width=330):
                adding = gr.Dropdown(_menu(), value=None, label="Add a schedule", info="Several can be compared.")
                cards = gr.Column()
            with gr.Column(scale=9, min_width=330, elem_id="shown"):
                with gr.Row(elem_id="options"):
                    axis = gr.Radio(list(AXES), value="Steps", show_label=False, container=False, elem_id="axis")
                    logarithmic = gr.Checkbox(False, label="Logarithmic", container=False)
                facts = gr.Markdown(elem_id="facts")
                plot = gr.Plot(show_label=False, container=False, elem_id="plot")
                problems = gr.Markdown(visible=False, elem_id="problems")
                fields = _run_fields(start.form)
                table = gr.HTML(elem_id="figures")
                selected = gr.Radio(label="Selected schedule", info="Its phases are shaded. It is the one to copy.")
                with gr.Tabs():
                    with gr.Tab("Phases"):
                        phases = gr.Textbox(label="Phases", info="Type here to change the curve.", elem_id="phases")
                        with gr.Accordion("Grammar", open=False):
                            gr.Code(GRAMMAR, language=None, show_line_numbers=False, show_label=False)
                    with gr.Tab("Copy"):
                        snippets = _snippets()
                    with gr.Tab("Paste a configuration", id="paste"):
                        pasting = _paste_fields(start)
                    with gr.Tab("Past run", visible=start.reads_runs):
                        folder = gr.Textbox(start.run, label="Folder of a run", placeholder="runs/sft", max_lines=1)
                        checkpoint = gr.Dropdown([], label="Resume from", info="Draws each `on_resume` policy.")
                        policies = gr.Markdown()

        shown = [plot, facts, problems, table, selected, phases, *snippets, policies]
        everything = [designs, selected, axis, logarithmic, pasted, folder, checkpoint, *fields.values()]

        def redraw(*values: Any) -> list[Any]:
            return _redraw(start, *values)

        gr.on(
            [app.load, designs.change, pasted.change, axis.change, logarithmic.change, selected.input, checkpoint.change],
            redraw,
            everything,
            shown,
            show_progress="hidden",
            trigger_mode="always_last",
        )
        for one in fields.values():
            one.change(redraw, everything, shown, show_progress="hidden", trigger_mode="always_last")
        adding.select(
            _add, [adding, designs, structure, *fields.values()], [adding, designs, structure, selected, phases]
        )
        gr.on([app.load, selected.input], _phases_of, [designs, selected], phases, show_progress="hidden")
        phases.input(
            _type_phases,
            [phases, designs, selected, structure],
            [designs, structure],
            show_progress="hidden",
            trigger_mode="always_last",
        )
        folder.submit(_find_checkpoints, folder, checkpoint).then(redraw, everything, shown)
        _connect_paste(start, pasting, pasted, designs, structure, phases, fields)
        if start.run:
            app.load(_find_checkpoints, folder, checkpoint)

        with cards:

            @gr.render(inputs=[designs], triggers=[app.load, structure.change])
            def _(current: list[Design]) -> None:
                for number, design in enumerate(current):
                    _card(number, design, designs, structure)

    return app


def _designs(start: Start) -> list[Design]:
    return [{"id": n, "name": s.name, "arguments": dict(s.arguments)} for n, s in enumerate(start.schedules)]


def _menu() -> list[tuple[str, str]]:
    ours = [(f"{name}: {_brief(name)}", name) for name in registry.available()]
    return ours + [(f"{name} (transformers): {_brief(name)}", name) for name in registry.BUILTIN_NAMES]


def _brief(name: str) -> str:
    return summary(name).rstrip(".")


def _run_fields(form: RunForm) -> dict[str, Any]:
    """The fields of the run, by the names of `RunForm` and in its order."""
    with gr.Row():
        return {
            name: gr.Textbox(text, label=_LABELS[name], min_width=118, max_lines=1, elem_id=name)
            for name, text in _texts_of(form).items()
        }


def _texts_of(form: RunForm) -> dict[str, str]:
    return {name: "" if value is None else f"{value}" for name, value in vars(form).items()}


def _card(number: int, design: Design, designs: gr.State, structure: gr.State) -> None:
    """The controls of one schedule."""
    name = design["name"]
    with gr.Accordion(name, open=name in registry.available(), elem_classes=[f"curve-{number % len(COLORS)}"]):
        gr.Markdown(summary(name))
        for argument in controls.arguments_of(name):
            value = design["arguments"].get(argument.name)
            made = controls.control(name, argument, value, elem_id=f"{argument.name}-{design['id']}")

            def change(raw: Any, current: list[Design], argument: Any = argument) -> list[Design]:
                value = controls.value_of(name, argument, raw)
                return _with_argument(current, design["id"], argument.name, value)

            events = [made.submit, made.blur] if isinstance(made, gr.Textbox) else [made.input]
            gr.on(events, change, [made, designs], designs, show_progress="hidden", trigger_mode="always_last")
        if name == "phases":
            gr.Markdown("Edit the text under **Phases**.")
        remove = gr.Button("Remove", size="sm", variant="secondary")
        remove.click(
            lambda current, version: ([d for d in current if d["id"] != design["id"]], version + 1),
            [designs, structure],
            [designs, structure],
        )


def _snippets() -> list[Any]:
    languages = {"YAML": "yaml", "Flags": "shell", "Python": "python", "Phases": None}
    found = []
    with gr.Tabs():
        for name, language in languages.items():
            with gr.Tab(name):
                found.append(
                    gr.Code(
                        language=language,  # type: ignore[arg-type]
                        show_label=False,
                        interactive=False,
                        show_line_numbers=False,
                        wrap_lines=True,
                        elem_id=f"copy-{name.lower()}",
                    )
                )
    return found


def _paste_fields(start: Start) -> dict[str, Any]:
    made: dict[str, Any] = {}
    label = f"YAML or JSON of {_PROGRAMS}"
    made["text"] = gr.Code(start.configuration, language="yaml", label=label, interactive=True, lines=8, elem_id="paste")
    with gr.Row():
        for name, info in (("dataset_size", "If they cannot be counted"), ("num_processes", "If not in the file")):
            made[name] = gr.Textbox(start.about.get(name, ""), label=_LABELS[name], info=info, max_lines=1)
    with gr.Row():
        made["show"] = gr.Button("Show its curve and check it", variant="primary")
        made["edit"] = gr.Button("Edit it in the form")
    made["findings"] = gr.Markdown(elem_id="findings")
    return made


def _connect_paste(
    start: Start,
    pasting: dict[str, Any],
    pasted: gr.State,
    designs: gr.State,
    structure: gr.State,
    phases: gr.Textbox,
    fields: dict[str, Any],
) -> None:
    given = [pasting["text"], pasting["dataset_size"], pasting["num_processes"]]

    def read(text: str, *numbers: str) -> Pasted:
        about = {
            name: READERS[name](name, number) if number.strip() else None
            for name, number in zip(("dataset_size", "num_processes"), numbers, strict=True)
        }
        return read_pasted(text, extra=start.extra, **about)

    def show(*values: Any) -> tuple[Pasted | None, str]:
        try:
            found = read(*values)
        except ValueError as error:
            return None, f"**Not readable**: {error}"
        return found, findings(found)

    def edit(current: list[Design], version: int, *values: Any) -> list[Any]:
        try:
            found = read(*values)
            if found.plan is None:
                raise ValueError(found.problem)
            form, schedule = RunForm.from_plan(found.config, found.plan), as_design(found)
        except ValueError as error:
            return [f"**Not possible**: {error}", *[gr.skip()] * (3 + len(fields))]
        new = {"id": _next_id(current), "name": schedule.name, "arguments": dict(schedule.arguments)}
        return [findings(found), [new], version + 1, _phases_of([new], new["id"]), *_texts_of(form).values()]

    pasting["show"].click(show, given, [pasted, pasting["findings"]])
    pasting["edit"].click(edit, [designs, structure, *given], [pasting["findings"], designs, structure, phases, *fields.values()])


def as_design(pasted: Pasted) -> NamedSchedule:
    """The schedule of a configuration that can be planned."""
    assert pasted.plan is not None
    return NamedSchedule(pasted.plan.schedule_name, dict(pasted.plan.schedule_arguments))


def findings(pasted: Pasted) -> str:
    """The findings of `hf-sched check` as Markdown."""
    report = pasted.report
    lines = [f"Read as **{pasted.program}**: {len(report.errors) or 'no'} errors, "
             f"{len(report.findings) - len(report.errors) or 'no'} warnings."]
    if pasted.problem:
        lines.append(f"No curve: {pasted.problem}.")
    if report.findings:
        lines += ["", "| line | | key | |", "|---|---|---|---|"]
        for finding in report.findings:
            message = finding.message.replace("|", "\\|")
            lines.append(f"| {finding.line or ''} | **{finding.severity}** | `{finding.key or '-'}` | {message} |")
    lines += [f"\nNot judged: {note}" for note in report.not_judged]
    lines += [f"\nNote: {note}" for note in (pasted.plan.notes if pasted.plan else ())]
    return "\n".join(lines)


def _redraw(
    start: Start,
    designs: list[Design],
    selected: int | None,
    axis: str,
    logarithmic: bool,
    pasted: Pasted | None,
    folder: str,
    checkpoint: str | None,
    *values: Any,
) -> list[Any]:
    try:
        form = RunForm.read(dict(zip(READERS, values, strict=True)))
    except ValueError as error:
        return [gr.skip(), gr.skip(), gr.Markdown(f"**run**: {error}", visible=True), *[gr.skip()] * 8]
    ids = [design["id"] for design in designs]
    selected = selected if selected in ids else next(iter(ids), None)
    found = view(
        designs,
        form,
        selected=selected,
        axis=axis,
        logarithmic=logarithmic,
        pasted=pasted,
        run=Path(folder).expanduser() if folder and start.reads_runs else None,
        checkpoint=checkpoint,
    )
    return [
        found.figure,
        found.facts,
        gr.Markdown(found.problems, visible=bool(found.problems)),
        found.table,
        _selection(designs, selected),
        gr.skip() if found.phases is None else found.phases,
        *(found.snippets.get(name, "") for name in ("yaml", "flags", "python", "phases")),
        found.resumes,
    ]


def _selection(designs: list[Design], selected: int | None) -> Any:
    ids = [design["id"] for design in designs]
    return gr.Radio(list(zip(labels_of(designs), ids, strict=True)), value=selected, visible=len(ids) > 1)


def _add(name: str, designs: list[Design], version: int, *values: Any) -> list[Any]:
    try:
        form = RunForm.read(dict(zip(READERS, values, strict=True)))
    except ValueError:
        form = RunForm()
    new = {"id": _next_id(designs), "name": name, "arguments": controls.first_arguments(name, form)}
    added = [*designs, new]
    return [None, added, version + 1, _selection(added, new["id"]), _phases_of(added, new["id"])]


def _phases_of(designs: list[Design], selected: int | None) -> Any:
    """What the text field shows for a schedule that consists of its text."""
    chosen = next((design for design in designs if design["id"] == selected), designs[0] if designs else None)
    return chosen["arguments"]["phases"] if chosen and chosen["name"] == "phases" else gr.skip()


def _type_phases(
    text: str, designs: list[Design], selected: int | None, version: int
) -> tuple[list[Design], int]:
    """Make the selected schedule what the text says."""
    number = next((n for n, design in enumerate(designs) if design["id"] == selected), 0)
    if not designs or not text.strip():
        return designs, version
    changed = [*designs]
    changed[number] = {"id": designs[number]["id"], "name": "phases", "arguments": {"phases": text}}
    return changed, version + (designs[number]["name"] != "phases")


def _find_checkpoints(folder: str) -> Any:
    names = past_run.checkpoints(Path(folder).expanduser()) if folder else []
    return gr.Dropdown(names, value=names[-1] if names else None)


def _with_argument(designs: list[Design], of: int, name: str, value: Any) -> list[Design]:
    changed = []
    for design in designs:
        if design["id"] == of:
            others = {key: old for key, old in design["arguments"].items() if key != name}
            design = {**design, "arguments": others if value is None else {**others, name: value}}
        changed.append(design)
    return changed


def _next_id(designs: Sequence[Design]) -> int:
    return 1 + max((design["id"] for design in designs), default=-1)
