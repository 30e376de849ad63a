"""What can be seen of a process: traces, metrics, logs. The only importer of opentelemetry.

    runtime ──report──▶ observers ─┬▶ spans      also asked for what must be known before something is over
                                   ├▶ metrics ──▶ registry ──▶ prometheus, OpenTelemetry
                                   └▶ lines
    runtime ◀──status── gauges ──────────────────▶ registry

Each observer is a dictionary from the type of a report to what is done about it (`by_type`). `metric_names` and
`span_names` are the tables of all that may leave this process, `table` prints them. `registry` counts in memory,
`prometheus` shows it; `exporting` sets the SDK up when the environment asks for it (`routes`), `outage` says when that
fails; `logs` formats.

Nothing of OpenTelemetry is imported unless the application has done so or the environment asks for it: without it
nobody pays for it. Nothing that is needed to work depends on this package.
"""
