"""The collector, Jaeger and Prometheus with the configurations of `otel/`, and what is seen there."""
