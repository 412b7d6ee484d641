"""The flags as a Markdown table: what each becomes, by script, or why it has no equal."""

from sdjob.convert.flags import FILES, FLAGS, SCRIPTS, Flag, Script, Value

HEAD = "| flag | full | LoRA | Flax | becomes |\n|---|---|---|---|---|"
LEGEND = (
    "The columns in the middle are the flag's default in "
    + ", ".join(f"`{file}`" for file in FILES.values())
    + "; — where the script has no such flag."
)


def markdown_table() -> str:
    return "\n".join([LEGEND, "", HEAD, *(row(flag) for flag in sorted(FLAGS, key=lambda flag: flag.name))]) + "\n"


def row(flag: Flag) -> str:
    cells = [f"`--{flag.name}`", *(default_cell(flag, script) for script in SCRIPTS), meaning(flag)]
    return f"| {' | '.join(cells)} |"


def default_cell(flag: Flag, script: Script) -> str:
    if script not in flag.scripts:
        return "—"
    return "off" if flag.kind == "switch" else spelled(flag.default_of(script))


def spelled(value: Value) -> str:
    return "none" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def meaning(flag: Flag) -> str:
    parts = (
        [f"{flag.becomes} ({flag.because})" if flag.because else flag.becomes] if flag.becomes else [f"no equal: {flag.because}"]
    )
    if flag.done_anyway is not None:
        parts = [f"`{flag.done_anyway}`: what every job does; others have {parts[0]}"]
    if flag.flax_because and flag.flax_because != flag.because:
        parts.append(f"Flax: no equal: {flag.flax_because}")
    return "; ".join(parts)
