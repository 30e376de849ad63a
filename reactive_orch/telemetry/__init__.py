"""What can be seen of a process: traces, metrics, logs. The only importer of opentelemetry.

`metric_names` and `span_names` are the tables of all that may leave this process, `table` prints them. `metrics` counts
in memory, `prometheus` shows them to Prometheus; `spans` makes spans when OpenTelemetry is in use; `rebalance` and
`handling` say what happened, in both; `exporting` sets the SDK up when the environment asks for it (`routes`), `outage`
says when that fails; `logs` formats.

Nothing of OpenTelemetry is imported unless the application has done so or the environment asks for it: without it
nobody pays for it.
"""
