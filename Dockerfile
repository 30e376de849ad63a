# syntax=docker/dockerfile:1
# One image for workers and commands:
#     docker run IMAGE --replica-set orders --projection shop.projections --http 0.0.0.0:8080
#     docker run IMAGE migrate
# Your projections: a volume at /app, or an image FROM this one that copies them there.

FROM python:3.13.16-slim-trixie AS build
WORKDIR /src
COPY . .
# No worker runs the packages' own tests.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/reactive_orch \
    && pip --python /opt/reactive_orch/bin/python install --no-cache-dir "$(ls /wheels/*.whl)[cli,otlp]" \
    && find /opt/reactive_orch -depth -type d \( -name tests -o -name testdata -o -name _testbase \) -exec rm -r {} +

FROM python:3.13.16-slim-trixie
# For packages of your own, in an image FROM this one: USER root, python -m ensurepip, python -m pip install.
RUN pip uninstall --yes --root-user-action ignore pip
COPY --from=build /opt/reactive_orch /opt/reactive_orch
ENV PATH=/opt/reactive_orch/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 8080
# Batches in flight are finished, and the worker leaves; give it longer than Docker's 10 s (docker stop --timeout 35).
STOPSIGNAL SIGTERM
# Unhealthy means: only a restart would help. The database being away is not that.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "reactive_orch"]
CMD ["--help"]
